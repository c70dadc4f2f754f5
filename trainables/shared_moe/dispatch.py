"""Tokens to experts and back: sort the assignments by expert, two grouped matrix products, and undo the sort.

No token is dropped, experts may stay empty, and nothing waits for the device: the sizes of the groups stay there, in
bfloat16, in which GPUs train. (In float32 torch itself loops over groups there, and fetches the sizes.) The oracle, a
plain loop over experts, is in `tests.reference.shared_moe`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class Experts(nn.Module):
    """``num`` independent Linear-GELU-Linear layers with biases, kept as one tensor each."""

    def __init__(self, num: int, width: int, hidden: int) -> None:
        super().__init__()
        self.w_in = nn.Parameter(torch.empty(num, width, hidden))
        self.b_in = nn.Parameter(torch.empty(num, hidden))
        self.w_out = nn.Parameter(torch.empty(num, hidden, width))
        self.b_out = nn.Parameter(torch.empty(num, width))
        self._cast: tuple[Tensor, Tensor] | None = None

    def forward(
        self,
        x: Float[Tensor, "tokens width"],
        chosen: Int[Tensor, "tokens k"],
        weights: Float[Tensor, "tokens k"],
    ) -> tuple[Float[Tensor, "tokens width"], Int[Tensor, " experts"]]:
        """The weighted sum over each token's chosen experts (none twice), and how many assignments each expert got."""
        num, k = self.w_in.shape[0], chosen.shape[1]
        expert, order = chosen.flatten().sort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
        ends = torch.searchsorted(expert, torch.arange(1, num + 1, device=x.device), out_int32=True)
        inputs = _Copy.apply(x, order // k, inverse)  # type: ignore[no-untyped-call]
        # In place: products are not needed again, and memory is what this layer waits for.
        w_in, w_out = self._cast or self._matrices()
        hidden = F.gelu(_product(inputs, w_in, ends).add_(F.embedding(expert, self.b_in)))
        outputs = _product(hidden, w_out, ends).add_(F.embedding(expert, self.b_out))
        back = _Permute.apply(outputs, inverse, order).view(len(x), k, -1)  # type: ignore[no-untyped-call]
        return (back * weights.unsqueeze(-1)).sum(dim=1), ends.diff(prepend=ends.new_zeros(1))

    @contextmanager
    def cast_once(self) -> Iterator[None]:
        """Within it, all applications share one cast of the matrices; autocast does the same for its own operators.

        A cast for each application would keep as many copies for the backward pass as the depth has applications.
        """
        self._cast = self._matrices()
        try:
            yield
        finally:
            self._cast = None

    def _matrices(self) -> tuple[Tensor, Tensor]:
        """Both in the precision of products: that of autocast where it is on."""
        device = self.w_in.device.type
        if not torch.is_autocast_enabled(device):
            return self.w_in, self.w_out
        dtype = torch.get_autocast_dtype(device)
        return self.w_in.to(dtype), self.w_out.to(dtype)


def _product(x: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    """Rows of ``x`` up to ``ends[e]`` times matrix e, in the precision of the matrices."""
    product: Tensor = F.grouped_mm(x.to(matrices.dtype), matrices, offs=ends)
    return product


class _Copy(torch.autograd.Function):
    """Rows of ``x`` once for each assignment, in order of experts; the gradient gathers them again, token by token.

    Indexing alone would scatter the gradient, which on GPUs adds in no fixed order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, inverse: Tensor) -> Tensor:
        """``x[token]``."""
        ctx.save_for_backward(inverse)
        ctx.num_tokens = len(x)
        return x[token]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The sum over a token's assignments."""
        (inverse,) = ctx.saved_tensors
        return gradient[inverse].view(ctx.num_tokens, -1, gradient.shape[1]).sum(dim=1), None, None


class _Permute(torch.autograd.Function):
    """Rows in another order, whose gradient goes back by the inverse order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        """``x[order]``."""
        ctx.save_for_backward(inverse)
        return x[order]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The rows where they were."""
        (inverse,) = ctx.saved_tensors
        return gradient[inverse], None, None
