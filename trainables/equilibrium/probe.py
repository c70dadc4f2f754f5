"""What an evaluation says of the gradient: whether the estimator points the right way, and how far J is from normal.

Looked at on a few fixed sequences of the validation split, by the weights in training. The reference is the adjoint
equation solved to the end at the same state. The head's gradient is exact whatever the estimator, and hides failure,
so it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trainables.equilibrium.config import FROZEN, EquilibriumConfig
from trainables.equilibrium.estimators import ESTIMATORS
from trainables.equilibrium.estimators.api import Estimate, Problem
from trainables.equilibrium.estimators.implicit import solved
from trainables.equilibrium.layout import HEAD, group_of
from trainables.equilibrium.linearised import Linearised, eigenvalues
from trainables.equilibrium.stability import Gradients, cosine, norm_of
from trainables.training.seeding import make_generator

SEQUENCES = 8
"""Sequences that are looked at; all there are, if fewer."""
_PRODUCTS, _TOLERANCE = 200, 1e-4
_KRYLOV = 24


def look(
    config: EquilibriumConfig, weights: Mapping[str, Tensor], rows: Int[Tensor, "batch time1"]
) -> dict[str, float]:
    """Return ``cosine`` and ``norm_ratio`` against the implicit gradient, ``non_normality`` and ``abscissa`` of J.

    ``frozen_non_normality`` is that of an estimator that freezes the Jacobian, and 0 for all others.
    """
    with torch.inference_mode(False), torch.enable_grad():
        problem = Problem(config, weights, rows)
        estimate = ESTIMATORS[config.estimator](problem)
        exact = reference(problem)
        estimated, true = body(config, estimate.gradients), body(config, exact.gradients)
        skew = non_normality(problem.linearised, problem.free.z)
        return {
            "cosine": cosine(estimated, true).item(),
            "norm_ratio": (norm_of(estimated) / norm_of(true)).item(),
            "non_normality": skew,
            "frozen_non_normality": skew if config.estimator in FROZEN else 0.0,
            "abscissa": abscissa(problem.linearised, problem.free.z),
        }


def reference(problem: Problem) -> Estimate:
    """The gradient by the adjoint equation, solved until its residual is 1e-4 or 200 products are taken."""
    return solved(problem, products=_PRODUCTS, tolerance=_TOLERANCE)


def body(config: EquilibriumConfig, gradients: Gradients) -> dict[str, Tensor]:
    """The gradients of all weights but the head's."""
    groups = group_of(config)
    return {name: gradient for name, gradient in gradients.items() if groups[name] != HEAD}


def non_normality(jacobian: Linearised, z: Float[Tensor, "batch time width"]) -> float:
    """|J v - J'v| / |J v| for a random v: 0 where J is symmetric, and where it is antisymmetric 2."""
    v = _direction(z, "non-normality")
    forward = jacobian.times(v)
    return float((forward - jacobian.transposed(v)).norm() / forward.norm())


def abscissa(jacobian: Linearised, z: Float[Tensor, "batch time width"]) -> float:
    """The largest real part of an eigenvalue of J over all sequences, by Arnoldi; relaxation diverges above 0."""
    return float(eigenvalues(jacobian.transposed, _direction(z, "abscissa"), _KRYLOV).real.max())


def _direction(z: Float[Tensor, "batch time width"], purpose: str) -> Float[Tensor, "batch time width"]:
    return torch.randn(z.shape, generator=make_generator(0, purpose), dtype=torch.float64).to(z)
