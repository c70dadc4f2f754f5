"""Small configs and problems of `equilibrium` for tests: in float64, so that known answers can be held to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainables.equilibrium.config import EquilibriumConfig
from trainables.equilibrium.estimators.api import Problem
from trainables.equilibrium.linearised import Vector, gmres
from trainables.equilibrium.model import EquilibriumModel
from trainables.registry import build_config, get_family

MODES: dict[str, dict[str, Any]] = {
    "softmax": {"mode": "softmax", "qk_norm": True, "readout_norm": False},
    "tied": {"mode": "softmax", "tied": True},
    "energy": {"mode": "energy", "tied": True},
    "mono": {"mode": "mono", "qk_norm": True},
    "nemon": {"mode": "nemon"},
}
SMALL: dict[str, Any] = {
    "width": 8,
    "n_heads": 2,
    "d_ff": 16,
    "context": 6,
    "vocab_size": 11,
    "kappa": 1.0,
    "eps": 0.25,
    "t1": 40,
    "t2": 60,
    "select": False,
    "jr_mode": "off",
    "residual_init": 0.15,
}


def tiny(**fields: Any) -> EquilibriumConfig:
    """Preset ``tiny`` with other fields."""
    config = build_config(get_family("equilibrium"), fields, preset="tiny")
    assert isinstance(config, EquilibriumConfig)
    return config


def small(**fields: Any) -> EquilibriumConfig:
    """A config for known answers: without anything that is not asked for."""
    return EquilibriumConfig(**{**SMALL, **fields})


def problem(config: EquilibriumConfig, *, seed: int = 0, batch: int = 2, dtype: torch.dtype = torch.float64) -> Problem:
    """Random tokens under the weights of a seed; biases and gains are drawn as well, so that all of them matter."""
    torch.manual_seed(seed)
    model = EquilibriumModel(config).double()
    with torch.no_grad():
        for name, weight in model.weights.items():
            if name.endswith(("bias", "gain")):
                weight += 0.1 * torch.randn_like(weight)
            elif name == "head":
                weight *= 10.0
    rows = torch.randint(config.vocab_size, (batch, config.context + 1))
    weights = {name: weight.detach().to(dtype).requires_grad_() for name, weight in model.weights.items()}
    return Problem(config, weights, rows)


def exact_adjoint(of: Problem) -> Vector:
    """The solution of J'a = g at the free state, to the last digits."""
    adjoint, residual, _ = gmres(of.linearised.transposed, of.pull, restart=40, cycles=20, tolerance=1e-13)
    assert residual < 1e-11
    return adjoint


def cosine(one: Tensor, other: Tensor) -> float:
    """Of the angle between two tensors."""
    return ((one * other).sum() / (one.norm() * other.norm())).item()


def error(found: Tensor, true: Tensor) -> float:
    """|found - true| / |true|."""
    return ((found - true).norm() / true.norm()).item()
