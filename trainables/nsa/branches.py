"""The three branches of sparse attention for a tile of queries: one code path for training, prefill and decoding.

Queries come as (batch, group, heads of the group, time, dim), already scaled; keys and values as (batch, group, time,
dim). The queries of a tile have positions that follow one upon the other.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trainables.nsa.selection import NONE, block_scores, choose_blocks
from trainables.nsa.sparsity import UNION_BLOCKS, Sparsity, kernel_takes
from trainables.training.grouped import (
    copy_rows,
    for_each_head,
    grouped_product,
    into_order,
    out_of_order,
    sort_by_group,
)

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


_PART = 256
"""Queries that are put under a mask at a time: what they may see grows with their position, so half is left out."""
_LEAST_PART = 64
"""Queries at a time that look through their windows, which reach over about twice as many keys."""


def tile(
    queries: Queries, start: int, memory: Memory, sparsity: Sparsity, selection: Selection, *, counted: bool = False
) -> tuple[Float[Tensor, "branch batch group head time dim"], Reads | None]:
    """What each branch gives to the queries from position ``start`` on; what was read, if it is to be counted."""
    time = queries.shape[3]
    outputs: list[list[Tensor]] = [[], [], []]
    counts: list[list[Tensor]] = [[], [], []]
    lists = []
    gathers = _gathers(selection, queries, sparsity.num_blocks(start + time), sparsity)
    for first in range(0, time, _PART):
        some, at = queries[:, :, :, first : first + _PART], start + first
        positions = torch.arange(at, at + some.shape[3], device=queries.device)
        output, attention, seen = _compressed(some, positions, at, memory, sparsity)
        outputs[0].append(output)
        if counted:
            counts[0].append(seen.sum(-1))
        with torch.no_grad():
            blocks = choose_blocks(block_scores(attention, sparsity, _reach(at, some, sparsity)), positions, sparsity)
        lists.append(blocks)
        if not gathers:
            output, seen = united(some, blocks, positions, _begun(memory, at, some, sparsity), sparsity)
            outputs[1].append(output)
            if counted:
                counts[1].append(seen.sum(-1))
    blocks = torch.cat(lists, dim=2)
    if gathers:
        output, seen = gathered(queries, blocks, start, _begun(memory, start, queries, sparsity), sparsity)
        outputs[1].append(output)
        if counted:
            counts[1].append(seen.sum(-1))
    output, near = _window(queries, start, memory, sparsity)
    outputs[2].append(output)
    stacked = torch.stack([torch.cat(parts, dim=3) for parts in outputs])
    if not counted:
        return stacked, None
    counts[2].append(near.sum(-1).flatten()[:time])
    read = [torch.cat(parts, dim=-1).expand(blocks.shape[:3]) for parts in counts]
    return stacked, Reads(blocks, torch.stack(read))


def _gathers(selection: Selection, queries: Queries, num_blocks: int, sparsity: Sparsity) -> bool:
    """Whether each query fetches its own blocks; otherwise a mask leaves them over of all that are there."""
    if selection != "auto":
        return selection == "gather"
    if queries.shape[3] * sparsity.num_select < num_blocks:
        return True
    return num_blocks > UNION_BLOCKS * sparsity.num_select or takes_kernel(queries, sparsity)


def _reach(start: int, queries: Queries, sparsity: Sparsity) -> int:
    """Blocks of the selection that have begun by the last of the queries."""
    return sparsity.num_blocks(start + queries.shape[3])


def _begun(memory: Memory, start: int, queries: Queries, sparsity: Sparsity) -> KeyValues:
    """Keys and values of these blocks."""
    end = _reach(start, queries, sparsity) * sparsity.select_block
    keys, values = (part[:, :, :end] for part in memory.selected)
    return keys, values


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
    queries: Queries, blocks: Blocks, start: int, selected: KeyValues, sparsity: Sparsity
) -> tuple[Queries, Bool[Tensor, "batch group time tokens"]]:
    """Attention of each query to the blocks of its list; and the mask of the tokens it read.

    On a GPU that is a kernel of our own where it takes the shapes. Elsewhere pairs of a query and a block are sorted by
    block, so that each block meets all that selected it in one product: as many products as in a loop over queries that
    fetch blocks, and none of the fetching.
    """
    batch, group, head, time, dim = queries.shape
    size, number = sparsity.select_block, sparsity.num_select
    positions = torch.arange(start, start + time, device=queries.device)
    at = blocks.unsqueeze(-1) * size + torch.arange(size, device=queries.device)
    visible = (at <= positions.view(-1, 1, 1)) & (at >= 0)  # batch, group, time, select, size
    if takes_kernel(queries, sparsity):
        from trainables.nsa.kernels import selected_attention

        asked, *there = queries.transpose(2, 3), *selected
        parts = [part.to(selected[1].dtype).flatten(0, 1) for part in (asked, *there)]
        made = selected_attention(parts[0], parts[1], parts[2], blocks.flatten(0, 1), start, size)
        return made.view(batch, group, time, head, dim).transpose(2, 3), visible.flatten(3)
    num_blocks = selected[0].shape[2] // size
    base = torch.arange(batch * group, device=queries.device).view(batch, group, 1, 1) * num_blocks
    rows = (base + blocks.clamp(min=0)).flatten()
    if time * number < num_blocks:  # most blocks would meet nobody
        keys, values = (
            F.embedding(rows, part.reshape(-1, size * dim)).view(-1, number * size, dim) for part in selected
        )
        asked = queries.transpose(2, 3).reshape(-1, 1, head, dim)
        mask = visible.view(-1, 1, 1, number * size)
        mixed = F.scaled_dot_product_attention(asked, keys.unsqueeze(1), values.unsqueeze(1), attn_mask=mask, scale=1.0)
        return mixed.view(batch, group, time, head, dim).transpose(2, 3), visible.flatten(3)
    pairs = sort_by_group(rows, batch * group * num_blocks)
    order = for_each_head(pairs, number, head)
    keys, values = (part.reshape(-1, size, dim) for part in selected)
    asked = copy_rows(queries.transpose(2, 3).reshape(-1, dim), order, number)
    logits = out_of_order(grouped_product(asked, keys.mT, order.ends), order)
    logits = logits.view(batch, group, time, head, number * size)
    attention = logits.masked_fill(~visible.flatten(3).unsqueeze(3), -torch.inf).softmax(dim=-1)
    products = grouped_product(into_order(attention.view(-1, size), order), values, order.ends)
    mixed = out_of_order(products, order).view(batch, group, time, head, number, dim).sum(dim=4)
    return mixed.transpose(2, 3), visible.flatten(3)


def takes_kernel(queries: Queries, sparsity: Sparsity) -> bool:
    """Whether selected blocks are read by the kernel: on a GPU with Triton, for shapes that it takes."""
    if not queries.is_cuda or importlib.util.find_spec("triton") is None:
        return False
    return queries.dtype != torch.float64 and kernel_takes(queries.shape[2], queries.shape[4], sparsity.select_block)


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
    queries: Queries, start: int, memory: Memory, sparsity: Sparsity
) -> tuple[Queries, Bool[Tensor, "*part time keys"]]:
    """Output, and the mask of what each query saw, part by part; the last part may be filled up."""
    keys, values = memory.window
    batch, group, head, time, dim = queries.shape
    if memory.window_at is not None:
        near = _is_near(torch.arange(start, start + time, device=queries.device), memory.window_at, sparsity)
        return _attend(queries, (keys, values), near), near
    # In parts of as many queries, each with the keys from the first query's window to the last query.
    part = min(time, max(_LEAST_PART, sparsity.window))
    number, reach = -(-time // part), part + sparsity.window - 1
    first = start - sparsity.window + 1 - memory.window_from
    short = number * part - time
    padding = (0, 0, max(0, -first), short)
    parts = [F.pad(x[:, :, max(0, first) : first + reach + (number - 1) * part], padding) for x in (keys, values)]
    keys, values = (x.unfold(2, reach, part).permute(0, 2, 1, 4, 3).reshape(-1, group, reach, dim) for x in parts)
    asked = F.pad(queries, (0, 0, 0, short)).view(batch, group, head, number, part, dim)
    asked = asked.permute(0, 3, 1, 2, 4, 5).reshape(-1, group, head, part, dim)
    begins = start + part * torch.arange(number, device=queries.device).view(-1, 1)
    at = begins + torch.arange(reach, device=queries.device) - sparsity.window + 1
    near = _is_near(begins + torch.arange(part, device=queries.device), at, sparsity)
    mask = near.expand(batch, *near.shape).flatten(0, 1).unsqueeze(1).expand(-1, group, -1, -1)
    mixed = _attend(asked, (keys, values), mask).view(batch, number, group, head, part, dim)
    mixed = mixed.permute(0, 2, 3, 1, 4, 5).reshape(batch, group, head, -1, dim)[:, :, :, :time]
    return mixed, near


def _is_near(positions: Tensor, at: Tensor, sparsity: Sparsity) -> Bool[Tensor, "*part time keys"]:
    here, at = positions.unsqueeze(-1), at.unsqueeze(-2)
    return (at > here - sparsity.window) & (at <= here) & (at >= 0)


def _attend(queries: Queries, memory: KeyValues, mask: Tensor) -> Queries:
    """Fused attention under a mask over (time, keys), which may have batch and group in front; heads share keys."""
    if queries.shape[3] == 1 < queries.shape[2]:
        # Heads as if they were so many queries: keys are read once for all of them.
        return _attend(queries.transpose(2, 3), memory, mask).transpose(2, 3)
    head = queries.shape[2]
    keys, values = (part.flatten(0, 1).unsqueeze(1).expand(-1, head, -1, -1) for part in memory)
    if mask.ndim > 2:
        mask = mask.flatten(0, 1).unsqueeze(1)
    mixed = F.scaled_dot_product_attention(queries.flatten(0, 1), keys, values, attn_mask=mask, scale=1.0)
    return mixed.view(queries.shape)
