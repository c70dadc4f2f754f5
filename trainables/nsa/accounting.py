"""How large a config is, what training it takes, and whether anything of it is sparse: standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainables.api import Finding, Footprint, Preflight
from trainables.nsa.sparsity import UNION_BLOCKS, kernel_takes


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
    """Numbers of four bytes that one token's forward pass in float32 keeps for the backward pass, about.

    Per layer: the stream twice, its normalised forms, hidden units before and after the nonlinearity, and attention.
    With checkpointing the stream of each layer, and all of one.
    """
    d = config.width
    attention = _sparse_memory(config) if config.attn == "nsa" else _dense_memory(config)
    layer = 4 * d + attention + 2 * config.d_ff
    kept = config.depth * d + layer if config.checkpointing else config.depth * layer
    return int(kept + 2 * d)


def _dense_memory(config: Any) -> int:
    """Projections, turned queries and keys, keys and values for each head, what was mixed, and its log-sums."""
    dim, heads, groups = config.width // config.n_heads, config.n_heads, config.kv_groups
    return int((5 * heads + 3 * groups) * dim + config.width + heads)


def _sparse_memory(config: Any) -> int:
    """Projections and turned ones; blocks that are compressed, and the attention to them; the selection's pairs, or a
    mask over all tokens; windows, which overlap, with their mask; the three outputs and what was mixed of them."""
    dim, heads, groups, sizes = config.width // config.n_heads, config.n_heads, config.kv_groups, config.sparsity
    projected = (3 * heads + 8 * groups) * dim
    compressed = 2 * groups * dim * sizes.block // sizes.stride
    compressed += heads * (sizes.num_compressed(config.context) // 2 + 16) + heads * dim
    if config.selection == "gather" or (
        config.selection == "auto" and sizes.num_blocks(config.context) > UNION_BLOCKS * sizes.num_select
    ):
        tokens = sizes.selected_tokens
        selected = sizes.num_select * heads * dim + 2 * heads * tokens + groups * tokens // 4
    else:
        selected = groups * config.context * 15 // 16 + heads * dim
    near = (4 * groups + 2 * heads) * dim + 5 * groups * 2 * sizes.window // 4
    return int(projected + compressed + selected + near + 3 * heads * dim + config.width + heads)


def _footprint(config: Any) -> Footprint:
    tokens = config.batch_size // config.accumulation * config.context
    return Footprint(
        parameters=count_params(config),
        activations=4 * tokens * memory_per_token(config),
        logits=4 * tokens * 3 * config.vocab_size,
        amp=config.amp,
        attention="fused" if _is_fused(config) else "math",
        checkpointing=config.checkpointing,
    )


def _is_fused(config: Any) -> bool:
    """Whether a GPU has a kernel for it: not for a mask over all tokens, nor for all shapes of the selection."""
    if config.attn == "dense":
        return True
    heads, dim = config.n_heads // config.kv_groups, config.width // config.n_heads
    return config.selection != "union" and kernel_takes(heads, dim, config.select_block)


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
