"""A block whose force on each token is the gradient of an energy in that token's state, after the Energy Transformer.

F_t = x_t - kappa z_t + W_Q' sum_{j<t} p_tj k_j + fc' phi'(fc g_t), with g = LN z by one gain for all entries. Keys of
earlier tokens are constants of the energy of token t: the textbook gradient of the total energy (Hoover et al. 2023)
has a second term, by which a token feels those that attend to it, which are later ones. A learnt null key is always
there to be attended to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from trainables.equilibrium.field.api import State, heads, later, merged, scaled_scores
from trainables.equilibrium.layers import gelu, linear, masked, norm, softmax


class EnergyField:
    """See the module."""

    largest_step = math.inf

    def __init__(self, config: Any, weights: Mapping[str, Tensor], x: Float[Tensor, "batch time width"]) -> None:
        self.x = x
        self._kappa: float = config.kappa
        self._heads: int = config.n_heads
        self._weights = weights
        null = torch.zeros(x.shape[1], 1, dtype=torch.bool, device=x.device)
        self._hidden = torch.cat([null, later(x.shape[1], x.device, own=False)], dim=1)

    def __call__(self, z: State) -> State:
        """F(z), of the shape of ``z``."""
        weights = self._weights
        g = norm(z, weights["norm_gain"], weights["norm_bias"])
        hidden = gelu(linear(g, weights["fc"], weights["fc_bias"]))
        back = linear(hidden, weights["fc"].T, weights["pj_bias"])
        return self.x - self._kappa * z + self._attention(g) + back

    def _attention(self, g: State) -> State:
        weights = self._weights
        q, k = (heads(linear(g, weights[name]), self._heads) for name in ("wq", "wk"))
        null = weights["null_key"].to(k.dtype).unsqueeze(-2).expand(*k.shape[:-2], 1, k.shape[-1])
        k = torch.cat([null, k], dim=-2)
        shares = softmax(masked(scaled_scores(q, k), self._hidden))
        return linear(merged(shares @ k), weights["wq"].T)
