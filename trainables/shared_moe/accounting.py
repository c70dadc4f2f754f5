"""How many parameters a config has, and how many of them a token meets: closed forms, standard library only.

Attention's scores, whose operations grow with the context, are not in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from trainables.api import Footprint, Preflight


@dataclass(frozen=True)
class Size:
    """What the counts read of a config, but for `memory_per_token`; the defaults are preset ``control``'s."""

    vocab_size: int = 50_257
    context: int = 1024
    width: int = 1024
    depth: int = 20
    blocks: str = "shared"
    ffn: str = "moe"
    d_ff: int = 2048
    tied: bool = False
    depth_embedding: bool = False
    num_experts: int = 40
    top_k: int = 2

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Size:
        """The size of a config that has these fields and the control's others."""
        return cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})


def count_params(config: Any) -> int:
    """Parameters of the model of ``config``; equal to what its module has, for every variant."""
    d: int = config.width
    f: int = config.d_ff
    e: int = config.num_experts
    blocks = 1 if config.blocks == "shared" else config.depth
    expert = 2 * d * f + f + d
    ffn = (d * e + e) + e * expert if config.ffn == "moe" else expert
    attention, norms = 4 * d * d + 4 * d, 4 * d
    embedding = (config.vocab_size + config.context) * d
    head = 0 if config.tied else config.vocab_size * d
    depth_embedding = config.depth * d if config.depth_embedding else 0
    return int(embedding + head + blocks * (attention + norms + ffn) + 2 * d + depth_embedding)


def active_ffn(config: Any) -> int:
    """Entries of the feed-forward matrices that a token meets in one layer: 2 d k f, or 2 d f of a dense one."""
    active: int = 2 * config.width * config.d_ff * (config.top_k if config.ffn == "moe" else 1)
    return active


def matmul_params(config: Any) -> int:
    """Entries of the matrices that a token is multiplied by, all depth and the head counted, a tied head as well."""
    d = config.width
    router = d * config.num_experts
    layer = 4 * d * d + active_ffn(config) + router
    return int(config.depth * layer + config.vocab_size * d)


def memory_per_token(config: Any) -> int:
    """Numbers of four bytes that one token's forward pass in float32 keeps for the backward pass.

    Per layer: the stream twice, both of its normalised forms, queries, keys and values, what attention mixed, each
    token's n_heads log-sums of it, and four statistics of the norms. Of a dense layer, the hidden units before and
    after the nonlinearity. Of a mixture: these, the copied input and the output, k times; the router's logits and
    probabilities with their log-sum; k weights, and four times k indices of eight bytes. At the end the stream, its
    norm and statistics, log-probabilities over the vocabulary and the target.

    That is all that autograd keeps; attention's scores are never stored. While the loss is computed, logits and then
    their gradient come on top (2 V). bfloat16 halves most of it.
    """
    d, f, k = config.width, config.d_ff, config.top_k
    layer = 8 * d + config.n_heads + 4
    layer += k * (2 * d + 2 * f + 1 + 4 * 2) + 2 * config.num_experts + 1 if config.ffn == "moe" else 2 * f
    return int(config.depth * layer + 2 * d + 2 + config.vocab_size + 2)


def footprint(config: Any) -> Footprint:
    """What training the config takes; log-probabilities count with the logits, for they are in float32 always."""
    tokens = config.batch_size // config.accumulation * config.context
    return Footprint(
        parameters=count_params(config),
        activations=4 * tokens * (memory_per_token(config) - config.vocab_size),
        logits=4 * tokens * 3 * config.vocab_size,
        amp=config.amp,
    )


PREFLIGHT = Preflight(
    footprint=footprint,
    toys=("cpu-tiny", "cpu-tiny-dense", "tiny"),
    least={"P31": ("context", 1024), "P32": ("width", 256)},
    rules={
        "top_k": "P70",
        "gate": "P71",
        "aux_loss_coef_start": "P72",
        "aux_loss_coef_end": "P72",
        "aux_warmup_frac": "P72",
        "aux_decay_end_frac": "P72",
    },
)
