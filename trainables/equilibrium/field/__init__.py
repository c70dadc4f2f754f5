"""The field F(z), whose zero is the state that a token is predicted from: one file for each of its kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Int
from torch import Tensor

from trainables.equilibrium.field.api import Field, injection
from trainables.equilibrium.field.energy import EnergyField
from trainables.equilibrium.field.monotone import MonotoneField
from trainables.equilibrium.field.softmax import SoftmaxField

_MODES: Mapping[str, Any] = {
    "softmax": SoftmaxField,
    "energy": EnergyField,
    "mono": MonotoneField,
    "nemon": MonotoneField,
}


def make_field(config: Any, weights: Mapping[str, Tensor], ids: Int[Tensor, "batch time"]) -> Field:
    """The field of ``config`` over the tokens ``ids``; gradients flow to ``weights`` that ask for them."""
    field: Field = _MODES[config.mode](config, weights, injection(weights, ids))
    return field
