"""One layer that contracts whatever its weights: F(z) = kappa (-z + tanh(W z + sum_{j<t} p_tj V z_j + U x + b)).

The shares p_tj come of the injection alone, and of earlier tokens only, so that over a sequence the Jacobian is block
triangular with W on its diagonal. ``mono``: W = (1 - m) I - A'A + B - B', monotone with margin m in the Euclidean norm
(Winston & Kolter 2020). ``nemon``: W = (1 - m) I + A - diag(|A| 1), in the maximum norm (Jafarpour et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from trainables.equilibrium.field.api import State, heads, later, merged, scaled_scores
from trainables.equilibrium.layers import linear, masked, root_mean_square_norm, softmax


class MonotoneField:
    """See the module."""

    def __init__(self, config: Any, weights: Mapping[str, Tensor], x: Float[Tensor, "batch time width"]) -> None:
        self.x = x
        self._kappa: float = config.kappa
        self._heads: int = config.n_heads
        self.matrix = matrix_of(config, weights)
        """W, over the state of one token."""
        self._value = weights["v"]
        self._shares = _shares(config, weights, x)
        self._constant = linear(x, weights["u"], weights["bias"])
        self.largest_step = math.inf
        if config.mode == "nemon":
            least = self.matrix.detach().diagonal().min().clamp(max=0.0).item()
            self.largest_step = 1.0 / (config.kappa * (1.0 - least))

    def __call__(self, z: State) -> State:
        """F(z), of the shape of ``z``."""
        past = merged(self._shares.to(z.dtype) @ heads(linear(z, self._value), self._heads))
        return self._kappa * (torch.tanh(linear(z, self.matrix) + past + self._constant) - z)


def matrix_of(config: Any, weights: Mapping[str, Tensor]) -> Float[Tensor, "width width"]:
    """W of ``mono`` or ``nemon``."""
    a = weights["a"]
    matrix: Tensor = (1.0 - config.margin) * torch.eye(config.width, dtype=a.dtype, device=a.device)
    if config.mode == "mono":
        return matrix - a.T @ a + weights["b"] - weights["b"].T
    return matrix + a - torch.diag(a.abs().sum(dim=1))


def _shares(
    config: Any, weights: Mapping[str, Tensor], x: Float[Tensor, "batch time width"]
) -> Float[Tensor, "batch heads time time"]:
    """Attention of each token's injection to those before it; the first token attends to nothing."""
    q, k = (heads(linear(x, weights[name]), config.n_heads) for name in ("wq", "wk"))
    if config.qk_norm:
        q, k = root_mean_square_norm(q), root_mean_square_norm(k)
    hidden = later(x.shape[1], x.device, own=False)
    hidden[0, 0] = False
    shares = softmax(masked(scaled_scores(q, k), hidden))
    return shares * (torch.arange(x.shape[1], device=x.device) > 0).unsqueeze(-1)
