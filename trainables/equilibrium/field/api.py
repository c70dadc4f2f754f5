"""What a field is, and what all kinds share: the injection, heads, the causal mask.

States have the shape (*stack, batch, time, width): whatever comes before the batch holds several states over the same
tokens. The field at a position depends on the states at that position and before it, and on no later token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Inexact, Int
from torch import Tensor

State = Inexact[Tensor, "*stack batch time width"]


class Field(Protocol):
    """The right-hand side of dz/dt = F(z), real or complex.

    Attributes:
        x: (batch, time, width), what the tokens inject.
        largest_step: of an explicit step that is known to contract; infinite where nothing is known.
    """

    x: Float[Tensor, "batch time width"]
    largest_step: float

    def __call__(self, z: State) -> State:
        """F(z), of the shape of ``z``."""
        ...


def injection(weights: Mapping[str, Tensor], ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time width"]:
    """The embedding of each token and of its position."""
    return torch.nn.functional.embedding(ids, weights["tokens"]) + weights["positions"][: ids.shape[1]]


def heads(z: Inexact[Tensor, "*batch time width"], number: int) -> Inexact[Tensor, "*batch heads time dim"]:
    """The entries of each head."""
    return z.view(*z.shape[:-1], number, z.shape[-1] // number).transpose(-2, -3)


def merged(z: Inexact[Tensor, "*batch heads time dim"]) -> Inexact[Tensor, "*batch time width"]:
    """The inverse of `heads`."""
    return z.transpose(-2, -3).flatten(-2)


def later(time: int, device: torch.device, *, own: bool) -> Bool[Tensor, "time time"]:
    """True where a key (column) may not be seen by a query (row): later ones, and its own unless ``own``."""
    return torch.ones(time, time, dtype=torch.bool, device=device).triu(1 if own else 0)


def scaled_scores(
    q: Inexact[Tensor, "*batch time dim"], k: Inexact[Tensor, "*batch keys dim"]
) -> Inexact[Tensor, "*batch time keys"]:
    """Products of queries and keys over the root of their size."""
    return (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
