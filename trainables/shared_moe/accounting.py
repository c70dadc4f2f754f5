"""How many parameters a config has, and how many of them a token meets: closed forms, standard library only.

What it is not: a count of floating point operations of attention's scores, which grow with the context.
"""

from __future__ import annotations

from typing import Any


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
    """Numbers that one token's forward pass keeps for the backward pass, attention's scores left out (they are fused).

    Per layer: two normalised inputs, queries, keys and values, the attention's output, its projection, and k (or one)
    times the copied input, the hidden units before and after the nonlinearity and the output. An estimate to set a
    batch size by, of the order of what a profiler shows; logits and embeddings are counted once.
    """
    d, k = config.width, max(1, config.top_k)
    layer = 2 * d + 3 * d + 2 * d + k * (2 * d + 2 * config.d_ff)
    return int(config.depth * layer + 2 * config.vocab_size + d)
