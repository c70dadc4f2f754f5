"""The selected branch on a GPU: one program for each query and group of heads, forward and backward, in Triton.

Heads of a group are the rows of its products, padded to the 16 that tensor cores take, so that a block is fetched once
for all of them. The gradients of keys and values are added up by one program for each block, over the queries that
selected it in a fixed order: nothing is added atomically, and the same inputs give the same bits.

Imported where there is a GPU and Triton alone; `trainables.nsa.branches.gathered` gives the same everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from trainables.training.grouped import sort_by_group

_ROWS = 16
"""Heads that a product has at least; the rest is padding."""


def selected_attention(
    queries: Float[Tensor, "row time head dim"],
    keys: Float[Tensor, "row keys dim"],
    values: Float[Tensor, "row keys dim"],
    blocks: Int[Tensor, "row time select"],
    start: int,
    size: int,
) -> Float[Tensor, "row time head dim"]:
    """Attention of each query, already scaled, to the blocks of its list, as far as they are not after it.

    A row is a sequence and group. The first block of a list is one that is there (block 0 is always selected).
    """
    parts = (part.contiguous() for part in (queries, keys, values))
    return _Selected.apply(*parts, blocks.int().contiguous(), start, size)  # type: ignore[no-any-return, no-untyped-call]


class _Selected(torch.autograd.Function):
    """`selected_attention` with its gradients."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, blocks: Tensor, start: int, size: int
    ) -> Tensor:
        """The output; the log-sum of each query's weights is kept."""
        rows, time, head, dim = queries.shape
        output = torch.empty_like(queries)
        log_sums = torch.empty(rows, time, head, dtype=torch.float32, device=queries.device)
        _forward[(time, rows)](
            queries, keys, values, blocks, output, log_sums, start, time, keys.shape[1], blocks.shape[2],
            HEAD=head, ROWS=_ROWS, DIM=dim, SIZE=size,
        )  # fmt: skip
        ctx.save_for_backward(queries, keys, values, blocks, output, log_sums)
        ctx.sizes = start, size
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries, keys and values."""
        queries, keys, values, blocks, output, log_sums = ctx.saved_tensors
        start, size = ctx.sizes
        rows, time, head, dim = queries.shape
        select, num_blocks = blocks.shape[2], keys.shape[1] // size
        gradient = gradient.contiguous()
        inner = (gradient.float() * output.float()).sum(dim=-1)
        of_queries, of_keys, of_values = (torch.empty_like(part) for part in (queries, keys, values))
        shapes: dict[str, int] = {"HEAD": head, "ROWS": _ROWS, "DIM": dim, "SIZE": size}
        _backward_queries[(time, rows)](
            queries, keys, values, blocks, gradient, log_sums, inner, of_queries,
            start, time, keys.shape[1], select, **shapes,
        )  # fmt: skip
        base = torch.arange(rows, device=blocks.device).view(-1, 1, 1) * num_blocks
        # Pairs without a block come last, in a group of their own that no program looks at.
        group = torch.where(blocks < 0, rows * num_blocks, base + blocks).flatten()
        pairs = sort_by_group(group, rows * num_blocks)
        _backward_blocks[(num_blocks, rows)](
            queries, keys, values, pairs.order, pairs.ends, gradient, log_sums, inner, of_keys, of_values,
            start, time, keys.shape[1], select, num_blocks, **shapes,
        )  # fmt: skip
        return of_queries, of_keys, of_values, None, None, None


@triton.jit  # type: ignore[untyped-decorator]
def _forward(  # type: ignore[no-untyped-def]
    queries, keys, values, blocks, output, log_sums, start, time, length, select,
    HEAD: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    at, row = tl.program_id(0), tl.program_id(1)
    head, dim, token = tl.arange(0, ROWS), tl.arange(0, DIM), tl.arange(0, SIZE)
    query = (row * time + at).to(tl.int64)
    here = (query * HEAD + head[:, None]) * DIM + dim[None, :]
    asked = tl.load(queries + here, mask=head[:, None] < HEAD, other=0.0)
    most = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, DIM], tl.float32)
    for i in range(select):
        block = tl.load(blocks + query * select + i)
        place = block * SIZE + token
        seen = (block >= 0) & (place <= start + at)
        there = (row.to(tl.int64) * length + place[:, None]) * DIM + dim[None, :]
        key = tl.load(keys + there, mask=seen[:, None], other=0.0)
        value = tl.load(values + there, mask=seen[:, None], other=0.0)
        logits = tl.dot(asked, tl.trans(key), input_precision="ieee")
        logits = tl.where(seen[None, :], logits, float("-inf"))
        higher = tl.maximum(most, tl.max(logits, 1))
        weights = tl.exp(logits - higher[:, None])
        fading = tl.exp(most - higher)
        total = total * fading + tl.sum(weights, 1)
        mixed = mixed * fading[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        most = higher
    result = mixed / total[:, None]
    tl.store(output + here, result.to(output.dtype.element_ty), mask=head[:, None] < HEAD)
    tl.store(log_sums + query * HEAD + head, most + tl.log(total), mask=head < HEAD)


@triton.jit  # type: ignore[untyped-decorator]
def _backward_queries(  # type: ignore[no-untyped-def]
    queries, keys, values, blocks, gradient, log_sums, inner, of_queries,
    start, time, length, select,
    HEAD: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    at, row = tl.program_id(0), tl.program_id(1)
    head, dim, token = tl.arange(0, ROWS), tl.arange(0, DIM), tl.arange(0, SIZE)
    query = (row * time + at).to(tl.int64)
    here = (query * HEAD + head[:, None]) * DIM + dim[None, :]
    asked = tl.load(queries + here, mask=head[:, None] < HEAD, other=0.0)
    wanted = tl.load(gradient + here, mask=head[:, None] < HEAD, other=0.0)
    log_sum = tl.load(log_sums + query * HEAD + head, mask=head < HEAD, other=0.0)
    product = tl.load(inner + query * HEAD + head, mask=head < HEAD, other=0.0)
    found = tl.zeros([ROWS, DIM], tl.float32)
    for i in range(select):
        block = tl.load(blocks + query * select + i)
        place = block * SIZE + token
        seen = (block >= 0) & (place <= start + at)
        there = (row.to(tl.int64) * length + place[:, None]) * DIM + dim[None, :]
        key = tl.load(keys + there, mask=seen[:, None], other=0.0)
        value = tl.load(values + there, mask=seen[:, None], other=0.0)
        logits = tl.dot(asked, tl.trans(key), input_precision="ieee")
        weights = tl.where(seen[None, :], tl.exp(logits - log_sum[:, None]), 0.0)
        change = weights * (tl.dot(wanted, tl.trans(value), input_precision="ieee") - product[:, None])
        found += tl.dot(change.to(key.dtype), key, input_precision="ieee")
    tl.store(of_queries + here, found.to(of_queries.dtype.element_ty), mask=head[:, None] < HEAD)


@triton.jit  # type: ignore[untyped-decorator]
def _backward_blocks(  # type: ignore[no-untyped-def]
    queries, keys, values, order, ends, gradient, log_sums, inner, of_keys, of_values,
    start, time, length, select, num_blocks,
    HEAD: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    block, row = tl.program_id(0), tl.program_id(1)
    head, dim, token = tl.arange(0, ROWS), tl.arange(0, DIM), tl.arange(0, SIZE)
    place = block * SIZE + token
    there = (row.to(tl.int64) * length + place[:, None]) * DIM + dim[None, :]
    key, value = tl.load(keys + there), tl.load(values + there)
    mine = row * num_blocks + block
    first = tl.load(ends + mine - 1, mask=mine > 0, other=0)
    last = tl.load(ends + mine)
    of_key, of_value = tl.zeros([SIZE, DIM], tl.float32), tl.zeros([SIZE, DIM], tl.float32)
    for i in range(first, last):
        query = tl.load(order + i) // select
        seen = place <= start + (query - row.to(tl.int64) * time)
        here = (query * HEAD + head[:, None]) * DIM + dim[None, :]
        asked = tl.load(queries + here, mask=head[:, None] < HEAD, other=0.0)
        wanted = tl.load(gradient + here, mask=head[:, None] < HEAD, other=0.0)
        log_sum = tl.load(log_sums + query * HEAD + head, mask=head < HEAD, other=0.0)
        product = tl.load(inner + query * HEAD + head, mask=head < HEAD, other=0.0)
        logits = tl.dot(asked, tl.trans(key), input_precision="ieee")
        used = seen[None, :] & (head[:, None] < HEAD)
        weights = tl.where(used, tl.exp(logits - log_sum[:, None]), 0.0)
        change = weights * (tl.dot(wanted, tl.trans(value), input_precision="ieee") - product[:, None])
        of_value += tl.dot(tl.trans(weights.to(wanted.dtype)), wanted, input_precision="ieee")
        of_key += tl.dot(tl.trans(change.to(asked.dtype)), asked, input_precision="ieee")
    tl.store(of_keys + there, of_key.to(of_keys.dtype.element_ty))
    tl.store(of_values + there, of_value.to(of_values.dtype.element_ty))
