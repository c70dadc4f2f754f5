"""A transformer block in parallel form, damped: F(z) = x - kappa z + Attn(LN z) + MLP(LN z)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from trainables.equilibrium.field.api import State, heads, later, merged, scaled_scores
from trainables.equilibrium.layers import gelu, linear, masked, norm, root_mean_square_norm, softmax


class SoftmaxField:
    """See the module. With tied weights keys are values, and what goes in by a matrix comes out by its transpose."""

    largest_step = math.inf

    def __init__(self, config: Any, weights: Mapping[str, Tensor], x: Float[Tensor, "batch time width"]) -> None:
        self.x = x
        self._kappa: float = config.kappa
        self._heads: int = config.n_heads
        self._qk_norm: bool = config.qk_norm
        self._weights = weights
        self._value = weights["wk" if config.tied else "wv"]
        self._out = weights["wq"].T if config.tied else weights["wo"]
        self._back = weights["fc"].T if config.tied else weights["pj"]
        self._hidden = later(x.shape[1], x.device, own=True)

    def __call__(self, z: State) -> State:
        """F(z), of the shape of ``z``."""
        return self.x - self._kappa * z + self._attention(z) + self._mlp(z)

    def _attention(self, z: State) -> State:
        weights = self._weights
        y = norm(z, weights["norm_attention_gain"], weights["norm_attention_bias"])
        q, k, v = (heads(linear(y, weight), self._heads) for weight in (weights["wq"], weights["wk"], self._value))
        if self._qk_norm:
            q, k = root_mean_square_norm(q), root_mean_square_norm(k)
        shares = softmax(masked(scaled_scores(q, k), self._hidden))
        return linear(merged(shares @ v), self._out)

    def _mlp(self, z: State) -> State:
        weights = self._weights
        y = norm(z, weights["norm_mlp_gain"], weights["norm_mlp_bias"])
        return linear(gelu(linear(y, weights["fc"], weights["fc_bias"])), self._back, weights["pj_bias"])
