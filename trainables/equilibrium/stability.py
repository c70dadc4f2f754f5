"""What keeps the free phase at rest: a penalty on the Jacobian, its weight, a bound on matrices, a bound on residuals.

A gradient at the fixed point says nothing of whether relaxation gets there, and training drives the Jacobian's leading
eigenvalues towards the right half plane. All of this acts on weights and never enters an estimate of the adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainables.equilibrium.estimators.api import Problem, gradients_of
from trainables.equilibrium.field import make_field
from trainables.equilibrium.linearised import Vector

_MOST_CHANGE = 1.0
"""Bound on the logarithm that the controller acts on: one bad batch does not throw it."""
_ITERATIONS = 3
"""Of the power method, a step; its vectors are kept."""

Gradients = Mapping[str, Tensor]


def penalty(problem: Problem, v: Vector) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """R = |v'(J + kappa I)|^2 / n at the free state for a vector of n numbers, and its gradients.

    Over random signs or normal ``v`` its mean is the squared Frobenius norm of J + kappa I over n (Hutchinson 1989; Bai
    et al. 2021, who penalise J itself).
    """
    with torch.enable_grad():
        z = problem.free.z.detach().requires_grad_()
        force = make_field(problem.config, problem.weights, problem.ids)(z)
        (product,) = torch.autograd.grad(force, z, v, create_graph=True)
        value = (product + problem.config.kappa * v).square().mean()
        return value.detach(), gradients_of(value, problem.weights)


def residual_penalty(problem: Problem) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """|F|^2 / |z|^2 at the free state, and its gradients with the state held."""
    with torch.enable_grad():
        z = problem.free.z
        value = make_field(problem.config, problem.weights, problem.ids)(z).square().sum() / z.square().sum()
        return value.detach(), gradients_of(value, problem.weights)


def norm_of(gradients: Gradients) -> Float[Tensor, ""]:
    """The norm of all gradients together."""
    return torch.nn.utils.get_total_norm(list(gradients.values()))


def product_of(one: Gradients, other: Gradients) -> Float[Tensor, ""]:
    """The scalar product of two sets of gradients."""
    return torch.stack([(gradient * other[name]).sum() for name, gradient in one.items()]).sum()


def cosine(one: Gradients, other: Gradients) -> Float[Tensor, ""]:
    """The cosine of the angle between two sets of gradients."""
    return product_of(one, other) / (norm_of(one) * norm_of(other))


def combined(one: Gradients, other: Gradients, weight: Tensor | float) -> dict[str, Tensor]:
    """``one + weight * other``."""
    return {name: gradient + weight * other[name] for name, gradient in one.items()}


def capped(jr: float, cap: float | None, of_loss: Tensor, of_penalty: Tensor) -> Tensor:
    """The penalty's weight: ``jr``, or what makes its gradient ``cap`` times the loss's, whichever is less.

    Without a cap a growing weight hijacks training: the penalty's gradient is a multiple of the loss's, and almost
    orthogonal to it.
    """
    weight = torch.full_like(of_loss, jr)
    if cap is None:
        return weight
    return torch.minimum(weight, cap * of_loss / of_penalty.clamp(min=torch.finfo(of_penalty.dtype).tiny))


def next_weight(jr: float, step_residual: float, config: Any) -> float:
    """The penalty's weight after a step: log jr += gain x clip(log(residual / target)), within floor and maximum."""
    if config.jr_mode != "controller":
        return jr
    error = _MOST_CHANGE
    if math.isfinite(step_residual):
        error = math.log(max(step_residual, 1e-30) / config.res_target)
    error = min(max(error, -_MOST_CHANGE), _MOST_CHANGE)
    return float(min(max(jr * math.exp(config.jr_gain * error), config.jr_floor), config.jr_max))


class SpectralBound:
    """W <- W min(1, rho / sigma) after a step, sigma the largest singular value by the power method.

    Acts on the weights and not in the graph. Torch's own spectral norm makes sigma 1, and changes the weight whenever
    it is read.
    """

    def __init__(self, matrices: Mapping[str, nn.Parameter], rho: float) -> None:
        self._matrices = matrices
        self._rho = rho
        self._right = {name: _start(matrix) for name, matrix in matrices.items()}

    def apply(self) -> None:
        """Scale every matrix that is above the bound down to it."""
        with torch.no_grad():
            for name, matrix in self._matrices.items():
                right = self._right[name]
                for _ in range(_ITERATIONS):
                    left = _unit(matrix @ right)
                    right = _unit(matrix.T @ left)
                self._right[name] = right
                sigma = (matrix @ right).norm()
                matrix.mul_((self._rho / sigma).clamp(max=1.0))

    def state_dict(self) -> dict[str, Tensor]:
        """The vectors of the power method."""
        return dict(self._right)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state``."""
        self._right = {name: state[name].to(right).clone() for name, right in self._right.items()}


def _start(matrix: nn.Parameter) -> Tensor:
    """A vector that no singular vector is likely to be orthogonal to."""
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(matrix.shape[1], generator=generator, dtype=torch.float64)
    return _unit(vector).to(dtype=matrix.dtype, device=matrix.device)


def _unit(vector: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vector, dim=0, eps=1e-30)
