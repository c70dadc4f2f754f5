"""Rotary positions (arXiv 2104.09864): a vector is turned by angles that grow with its position."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BASE = 10_000.0


def rotation(positions: Int[Tensor, " time"], dim: int, dtype: torch.dtype) -> Float[Tensor, "2 time half"]:
    """Cosines and sines of the angles at each position, for vectors of ``dim`` entries."""
    exponent = torch.arange(0, dim, 2, device=positions.device, dtype=torch.float64) / dim
    angles = positions.double().unsqueeze(1) * _BASE**-exponent
    return torch.stack([angles.cos(), angles.sin()]).to(dtype)


def rotate(vectors: Float[Tensor, "*rest time dim"], turn: Float[Tensor, "2 time half"]) -> Float[Tensor, ...]:
    """Turn vectors by the rotation of their positions: entry i together with entry i + dim / 2."""
    cos, sin = turn
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).to(vectors.dtype)
