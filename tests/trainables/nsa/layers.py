"""Layers of sparse attention for tests: small, in float64, with weights large enough that every part matters."""

from __future__ import annotations

from typing import Any

import torch

from trainables.nsa.attention import SparseAttention
from trainables.nsa.sparsity import Sparsity

CONFIGS: dict[str, dict[str, Any]] = {
    "overlapping": {"sizes": (8, 4, 8, 3, 1, 8)},
    "side by side": {"sizes": (4, 4, 8, 4, 2, 5)},
    "four strides": {"sizes": (8, 2, 8, 4, 2, 6)},
    "large blocks": {"sizes": (4, 2, 16, 3, 2, 7)},
    "every token": {"sizes": (1, 1, 2, 5, 2, 3)},
    "one head a group": {"sizes": (8, 4, 8, 3, 2, 9), "n_heads": 2, "groups": 2},
    "one group": {"sizes": (8, 4, 16, 3, 2, 4), "n_heads": 4, "groups": 1},
    "mean": {"sizes": (8, 4, 8, 3, 1, 8), "phi": "mean"},
    "softmax": {"sizes": (8, 8, 16, 4, 1, 16), "gate": "softmax"},
    "dense": {"sizes": (8, 4, 8, 12, 2, 99)},
}


def sparse_layer(
    sizes: tuple[int, ...] = (8, 4, 8, 3, 1, 8), n_heads: int = 4, groups: int = 2, dim: int = 4, **kinds: Any
) -> SparseAttention:
    """A layer whose parameters are all drawn, those that begin at zero included; seeded by the caller."""
    layer = SparseAttention(n_heads * dim, n_heads, groups, Sparsity(*sizes), **kinds).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=1.5 * parameter.shape[-1] ** -0.5)
    return layer
