"""Rows that go to matrices of their own: sort them by matrix, one product for each group of rows, undo the sort.

Nothing waits for the device: the sizes of the groups stay there, in bfloat16, in which GPUs train. (In float32 torch
itself loops over groups there, and fetches the sizes.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


class Sorted(NamedTuple):
    """Assignments in order of their groups.

    Attributes:
        group: of each assignment in this order.
        order: the assignment that comes at each place.
        inverse: the place that each assignment comes to.
        ends: where each group ends.
    """

    group: Int[Tensor, " assignments"]
    order: Int[Tensor, " assignments"]
    inverse: Int[Tensor, " assignments"]
    ends: Int[Tensor, " groups"]


def sort_by_group(groups: Int[Tensor, " assignments"], number: int) -> Sorted:
    """A stable sort of assignments to ``number`` groups, some of which may be empty."""
    group, order = groups.sort(stable=True)
    inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=groups.device))
    ends = torch.searchsorted(group, torch.arange(1, number + 1, device=groups.device), out_int32=True)
    return Sorted(group, order, inverse, ends)


def for_each_head(order: Sorted, copies: int, heads: int) -> Sorted:
    """The same order for rows that come once for each of ``heads``: row, head, copy instead of row, copy."""
    head = torch.arange(heads, device=order.order.device)
    rows = ((order.order // copies).unsqueeze(1) * heads + head) * copies + (order.order % copies).unsqueeze(1)
    rows = rows.flatten()
    inverse = torch.empty_like(rows).scatter_(0, rows, torch.arange(len(rows), device=rows.device))
    return Sorted(order.group.repeat_interleave(heads), rows, inverse, order.ends * heads)


def grouped_product(
    x: Float[Tensor, "rows inner"], matrices: Float[Tensor, "groups inner outer"], ends: Int[Tensor, " groups"]
) -> Float[Tensor, "rows outer"]:
    """Rows of ``x`` up to ``ends[g]`` times matrix g, in the precision of the matrices.

    Torch has a kernel for sizes that are multiples of 8, and none in float64: there each row fetches its matrix.
    """
    x = x.to(matrices.dtype)
    if matrices.dtype == torch.float64 or matrices.shape[1] % 8 or matrices.shape[2] % 8:
        rows = torch.arange(len(x), device=x.device, dtype=ends.dtype)
        group = torch.searchsorted(ends, rows, right=True)
        return torch.bmm(x.unsqueeze(1), matrices[group]).squeeze(1)
    product: Tensor = F.grouped_mm(x, matrices, offs=ends)
    return product


def copy_rows(x: Float[Tensor, "rows width"], order: Sorted, copies: int) -> Float[Tensor, "assignments width"]:
    """Rows of ``x``, each of which has ``copies`` assignments, once for each of these in order of groups."""
    return _Copy.apply(x, order.order // copies, order.inverse)  # type: ignore[no-any-return, no-untyped-call]


def into_order(x: Float[Tensor, "assignments width"], order: Sorted) -> Float[Tensor, "assignments width"]:
    """What belongs to assignments, in order of groups."""
    return _Permute.apply(x, order.order, order.inverse)  # type: ignore[no-any-return, no-untyped-call]


def out_of_order(x: Float[Tensor, "assignments width"], order: Sorted) -> Float[Tensor, "assignments width"]:
    """The inverse of `into_order`."""
    return _Permute.apply(x, order.inverse, order.order)  # type: ignore[no-any-return, no-untyped-call]


class _Copy(torch.autograd.Function):
    """Rows of ``x`` once for each assignment, in order of groups; the gradient gathers them again, row by row.

    Indexing alone would scatter the gradient, which on GPUs adds in no fixed order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, row: Tensor, inverse: Tensor) -> Tensor:
        """``x[row]``."""
        ctx.save_for_backward(inverse)
        ctx.num_rows = len(x)
        return F.embedding(row, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The sum over a row's assignments."""
        (inverse,) = ctx.saved_tensors
        return F.embedding(inverse, gradient).view(ctx.num_rows, -1, gradient.shape[1]).sum(dim=1), None, None


class _Permute(torch.autograd.Function):
    """Rows in another order, whose gradient goes back by the inverse order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        """``x[order]``."""
        ctx.save_for_backward(inverse)
        return F.embedding(order, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The rows where they were."""
        (inverse,) = ctx.saved_tensors
        return F.embedding(inverse, gradient), None, None
