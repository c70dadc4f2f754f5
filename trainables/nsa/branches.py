"""The three branches of sparse attention for a tile of queries: one code path for training, prefill and decoding.

Queries come as (batch, group, heads of the group, time, dim), already scaled; keys and values as (batch, group, time,
dim). The queries of a tile have positions that follow one upon the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trainables.nsa.selection import NONE, block_scores, choose_blocks
from trainables.nsa.sparsity import Sparsity
from trainables.training.grouped import copy_rows, grouped_product, into_order, out_of_order, sort_by_group

Selection = Literal["auto", "gather", "union"]
Queries = Float[Tensor, "batch group head time dim"]
KeyValues = tuple[Float[Tensor, "batch group keys dim"], Float[Tensor, "batch group keys dim"]]
Blocks = Int[Tensor, "batch group time select"]


@dataclass(frozen=True)
class Memory:
    """All that queries may look at.

    Attributes:
        compressed: one key and value for each block that has ended.
        selected: from position 0 on, padded to whole blocks.
        window: keys and values whose positions ``window_at`` tells.
        window_at: positions, below 0 where nothing is; None: they follow one upon the other from ``window_from``.
    """

    compressed: KeyValues
    selected: KeyValues
    window: KeyValues
    window_from: int = 0
    window_at: Int[Tensor, " keys"] | None = None


@dataclass(frozen=True)
class Reads:
    """What a tile really read, counted on the masks and lists that its kernels were given.

    Attributes:
        blocks: the lists of the selection.
        counts: keys by branch.
    """

    blocks: Blocks
    counts: Int[Tensor, "branch batch group time"]


def tile(
    queries: Queries, start: int, memory: Memory, sparsity: Sparsity, selection: Selection, *, counted: bool = False
) -> tuple[Float[Tensor, "branch batch group head time dim"], Reads | None]:
    """What each branch gives to the queries from position ``start`` on; what was read, if it is to be counted."""
    time = queries.shape[3]
    positions = torch.arange(start, start + time, device=queries.device)
    compressed, attention, seen = _compressed(queries, positions, start, memory, sparsity)
    num_blocks = sparsity.num_blocks(start + time)
    with torch.no_grad():
        scores = block_scores(attention, sparsity, num_blocks)
        blocks = choose_blocks(scores, positions, sparsity)
    attend = gathered if _gathers(selection, num_blocks, sparsity) else united
    keys, values = (part[:, :, : num_blocks * sparsity.select_block] for part in memory.selected)
    selected, chosen = attend(queries, blocks, positions, (keys, values), sparsity)
    window, near = _window(queries, positions, start, memory, sparsity)
    outputs = torch.stack([compressed, selected, window])
    if not counted:
        return outputs, None
    shape = blocks.shape[:3]
    counts = [seen.sum(-1).expand(shape), chosen.sum(-1).expand(shape), near.sum(-1).expand(shape)]
    return outputs, Reads(blocks, torch.stack(counts))


def _gathers(selection: Selection, num_blocks: int, sparsity: Sparsity) -> bool:
    """Whether each query fetches its own blocks; otherwise a tile fetches all that any of its queries selected."""
    if selection != "auto":
        return selection == "gather"
    return num_blocks > _UNION_BLOCKS * sparsity.num_select


_UNION_BLOCKS = 8
"""Up to so many times the selected blocks it is faster to look at all of them under a mask; measured on a CPU."""


def _compressed(
    queries: Queries, positions: Tensor, start: int, memory: Memory, sparsity: Sparsity
) -> tuple[Tensor, Float[Tensor, "batch group time compressed"], Bool[Tensor, "time compressed"]]:
    """Output, attention summed over the heads of a group, and the mask of visible blocks."""
    time = queries.shape[3]
    number = sparsity.num_compressed(start + time)
    keys, values = (part[:, :, :number] for part in memory.compressed)
    ends = torch.arange(number, device=queries.device) * sparsity.stride + (sparsity.block - 1)
    visible = ends <= positions.unsqueeze(1)
    if not number:
        return torch.zeros_like(queries), queries.new_zeros(*queries.shape[:2], time, 0), visible
    logits = (queries.flatten(2, 3) @ keys.mT).view(*queries.shape[:4], number)
    # A row that sees no block is uniform under this mask, and then nothing: finite, and so are its gradients.
    attention = logits.masked_fill_(~visible, torch.finfo(logits.dtype).min).softmax(dim=-1)
    if start < sparsity.block - 1:
        attention = attention * visible.any(dim=-1, keepdim=True)
    output = (attention.flatten(2, 3).to(values.dtype) @ values).view(queries.shape)
    return output, attention.detach().sum(dim=2), visible


def gathered(
    queries: Queries, blocks: Blocks, positions: Int[Tensor, " time"], selected: KeyValues, sparsity: Sparsity
) -> tuple[Queries, Bool[Tensor, "batch group time tokens"]]:
    """Attention of each query to the blocks of its list; and the mask of the tokens it read.

    Pairs of a query and a block are sorted by block, so that each block meets all that selected it in one product: as
    many products as in a loop over queries that fetch blocks, and none of the fetching.
    """
    batch, group, head, time, dim = queries.shape
    size, number = sparsity.select_block, sparsity.num_select
    at = blocks.unsqueeze(-1) * size + torch.arange(size, device=queries.device)
    visible = (at <= positions.view(-1, 1, 1)) & (at >= 0)  # batch, group, time, select, size
    num_blocks = selected[0].shape[2] // size
    base = torch.arange(batch * group, device=queries.device).view(batch, group, 1, 1) * num_blocks
    order = sort_by_group((base + blocks.clamp(min=0)).flatten(), batch * group * num_blocks)
    ends = order.ends * head
    keys, values = (part.reshape(-1, size, dim) for part in selected)
    rows = copy_rows(queries.permute(0, 1, 3, 2, 4).reshape(-1, head * dim), order, number)
    logits = grouped_product(rows.view(-1, dim), keys.mT, ends)
    logits = out_of_order(logits.view(-1, head * size), order).view(-1, number, head, size)
    logits = logits.masked_fill(~visible.view(-1, number, 1, size), -torch.inf)
    attention = logits.transpose(1, 2).flatten(2).softmax(dim=-1).view(-1, head, number, size).transpose(1, 2)
    attention = into_order(attention.reshape(-1, head * size), order).view(-1, size)
    parts = out_of_order(grouped_product(attention, values, ends).view(-1, head * dim), order)
    mixed = parts.view(batch, group, time, number, head, dim).sum(dim=3)
    return mixed.transpose(2, 3), visible.flatten(3)


def united(
    queries: Queries, blocks: Blocks, positions: Int[Tensor, " time"], selected: KeyValues, sparsity: Sparsity
) -> tuple[Queries, Bool[Tensor, "batch group time tokens"]]:
    """The same, over the blocks up to the newest position at once, under the mask of what each query selected."""
    size = sparsity.select_block
    num_blocks = selected[0].shape[2] // size
    chosen = torch.zeros(*blocks.shape[:3], num_blocks + 1, dtype=torch.bool, device=queries.device)
    chosen.scatter_(-1, torch.where(blocks == NONE, num_blocks, blocks), True)
    at = torch.arange(num_blocks * size, device=queries.device)
    visible = chosen[..., :-1].repeat_interleave(size, dim=-1) & (at <= positions.unsqueeze(1))
    return _attend(queries, selected, visible), visible


def _window(
    queries: Queries, positions: Tensor, start: int, memory: Memory, sparsity: Sparsity
) -> tuple[Queries, Bool[Tensor, "time keys"]]:
    keys, values = memory.window
    at = memory.window_at
    if at is None:
        first = max(0, start - sparsity.window + 1) - memory.window_from
        last = start + queries.shape[3] - memory.window_from
        keys, values = keys[:, :, first:last], values[:, :, first:last]
        at = torch.arange(first + memory.window_from, last + memory.window_from, device=queries.device)
    here = positions.unsqueeze(1)
    near = (at > here - sparsity.window) & (at <= here) & (at >= 0)
    return _attend(queries, (keys, values), near), near


def _attend(queries: Queries, memory: KeyValues, mask: Tensor) -> Queries:
    """Fused attention under a mask over (time, keys), which may have batch and group in front; heads share keys."""
    head = queries.shape[2]
    keys, values = (part.flatten(0, 1).unsqueeze(1).expand(-1, head, -1, -1) for part in memory)
    if mask.ndim > 2:
        mask = mask.flatten(0, 1).unsqueeze(1)
    mixed = F.scaled_dot_product_attention(queries.flatten(0, 1), keys, values, attn_mask=mask, scale=1.0)
    return mixed.view(queries.shape)
