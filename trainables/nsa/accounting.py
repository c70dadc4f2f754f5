"""How large a config is, what training it takes, and whether anything of it is sparse: standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainables.api import Finding, Footprint, Preflight


def count_params(config: Any) -> int:
    """Parameters of the model of ``config``; equal to what its module has, for every variant."""
    d, dim, f = config.width, config.width // config.n_heads, config.d_ff
    branches = 3 if config.attn == "nsa" else 1
    attention = d * (config.n_heads + 2 * branches * config.kv_groups) * dim + d * d
    if config.attn == "nsa":
        attention += _gates(config) + (2 * _phi(config.block, dim) if config.phi == "mlp" else 0)
    block = 2 * d + attention + 2 * d * f + f + d
    return int(2 * config.vocab_size * d + config.depth * block + d)


def _gates(config: Any) -> int:
    hidden = max(8, config.width // 8)
    return int(config.width * hidden + hidden + hidden * 3 * config.n_heads + 3 * config.n_heads)


def _phi(block: int, dim: int) -> int:
    return block * dim + block * dim * 2 * dim + 2 * dim + 2 * dim * dim + dim


def memory_per_token(config: Any) -> int:
    """Numbers of four bytes that one token's forward pass keeps for the backward pass, about.

    Per layer: the stream twice, its normalised forms, queries, keys and values, what the branches and their mixture
    gave, hidden units before and after the nonlinearity. Sparse attention keeps the attention to compressed blocks as
    well, which grows with the context; under a mask, or of blocks that each query fetches, scores are computed again.
    """
    d, dim = config.width, config.width // config.n_heads
    if config.attn == "nsa":
        sizes = config.sparsity
        attention = (config.n_heads + 12 * config.kv_groups) * dim + 8 * d + 6 * config.n_heads
        attention += config.n_heads * sizes.num_compressed(config.context)
        attention += config.kv_groups * 4 * dim * sizes.block // sizes.stride
    else:
        attention = (2 * config.n_heads + 4 * config.kv_groups) * dim + 2 * d + config.n_heads
    layer = 4 * d + attention + 2 * config.d_ff
    kept = config.depth * d + layer if config.checkpointing else config.depth * layer
    return int(kept + 2 * d)


def _footprint(config: Any) -> Footprint:
    tokens = config.batch_size // config.accumulation * config.context
    return Footprint(
        parameters=count_params(config),
        activations=4 * tokens * memory_per_token(config),
        logits=4 * tokens * 3 * config.vocab_size,
        amp=config.amp,
        checkpointing=config.checkpointing,
    )


def _check(config: Any) -> Iterator[Finding]:
    """P61: at this length the selection and the window leave something out."""
    if config.attn != "nsa":
        return
    tokens, context = config.sparsity.selected_tokens, config.context
    if tokens >= context:
        yield Finding(
            "P61",
            "num_select x select_block",
            f"{config.num_select} x {config.select_block} = {tokens}: the selection is dense, for a sequence has "
            f"{context} tokens; allowed is less",
        )
    if config.window >= context:
        yield Finding(
            "P61",
            "window",
            f"{config.window}: the window is dense, for a sequence has {context} tokens; allowed is less",
        )


PREFLIGHT = Preflight(
    footprint=_footprint,
    toys=("showcase", "cpu-tiny", "tiny"),
    least={"P31": ("context", 1024), "P32": ("width", 256)},
    rules=dict.fromkeys(("n_heads", "kv_groups", "stride", "select_block", "num_select"), "P60"),
    check=_check,
)
