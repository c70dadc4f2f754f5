"""The readout of a state: logits, the cross-entropy, and its force on the state in closed form, real or complex."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Inexact, Int
from torch import Tensor

from trainables.equilibrium.field.api import State
from trainables.equilibrium.layers import linear, norm, softmax, standardised


class Readout:
    """Logits of a state, and how well they predict ``targets``: (batch, time) tokens."""

    def __init__(self, config: Any, weights: Mapping[str, Tensor], targets: Int[Tensor, "batch time"]) -> None:
        self.targets = targets
        self._normed: bool = config.readout_norm
        self._weights = weights

    def logits(self, z: State) -> Inexact[Tensor, "*stack batch time vocabulary"]:
        """Logits of the token after each position."""
        return logits_of(self._weights, z, normed=self._normed)

    def loss(self, z: Float[Tensor, "batch time width"]) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats, in float32 at the least."""
        logits = self.logits(z)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return F.cross_entropy(logits.flatten(0, 1), self.targets.flatten())

    def force(self, z: State) -> State:
        """The gradient of the summed cross-entropy in ``z``, continued analytically to complex states."""
        shares = softmax(self.logits(z))
        shares = shares if shares.is_complex() or shares.dtype == torch.float64 else shares.float()
        place = self.targets.expand(z.shape[:-1]).unsqueeze(-1)
        error = shares.scatter_add(-1, place, torch.full(place.shape, -1.0, device=z.device, dtype=shares.dtype))
        pull = linear(error, self._weights["head"].T)
        if not self._normed:
            return pull
        # The transpose of the norm's Jacobian.
        direction, scale = standardised(z)
        pull = pull * self._weights["norm_out_gain"]
        along = (pull * direction).mean(dim=-1, keepdim=True)
        return scale * (pull - pull.mean(dim=-1, keepdim=True) - direction * along)


def logits_of(
    weights: Mapping[str, Tensor], z: State, *, normed: bool
) -> Inexact[Tensor, "*stack batch time vocabulary"]:
    """Logits of a state: its product with the head, after a norm if ``normed``."""
    if normed:
        z = norm(z, weights["norm_out_gain"], weights["norm_out_bias"])
    return linear(z, weights["head"])
