"""Tokens to experts and back: sort the assignments by expert, two grouped matrix products, and undo the sort.

No token is dropped, experts may stay empty, and nothing waits for the device (`trainables.training.grouped`). The
oracle, a plain loop over experts, is in `tests.reference.shared_moe`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from trainables.training.grouped import copy_rows, grouped_product, out_of_order, sort_by_group


class Experts(nn.Module):
    """``num`` independent Linear-GELU-Linear layers with biases, kept as one tensor each."""

    def __init__(self, num: int, width: int, hidden: int, gelu_approximate: str = "none") -> None:
        super().__init__()
        self.gelu_approximate = gelu_approximate
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
        order = sort_by_group(chosen.flatten(), num)
        inputs = copy_rows(x, order, k)
        # In place: products are not needed again, and memory is what this layer waits for.
        w_in, w_out = self._cast or self._matrices()
        hidden = grouped_product(inputs, w_in, order.ends).add_(F.embedding(order.group, self.b_in))
        hidden = F.gelu(hidden, approximate=self.gelu_approximate)
        outputs = grouped_product(hidden, w_out, order.ends).add_(F.embedding(order.group, self.b_out))
        back = out_of_order(outputs, order).view(len(x), k, -1)
        return (back * weights.unsqueeze(-1)).sum(dim=1), order.ends.diff(prepend=order.ends.new_zeros(1))

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
