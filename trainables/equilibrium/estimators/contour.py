"""Nudged states that are held each for itself, with nudges on a circle around zero: two real ones, or complex ones.

Each follows dz = force(z) - beta g(z) from the free state. The mean of (z - z*) / beta over N evenly spread nudges is
the derivative of the state in the nudge up to an error of order N for even N (Laborieux & Zenke 2022).
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable

import torch
from torch import Tensor

from trainables.equilibrium.estimators.api import Problem
from trainables.equilibrium.field.api import State
from trainables.equilibrium.linearised import Vector


class Contour:
    """See the module. States of conjugate nudges are conjugates, so only those of the upper half plane are held.

    Args:
        problem: whose free state all begin from.
        force: what the states follow beside the nudge.
        points: number of nudges, even.
        radius: of the circle.
    """

    def __init__(self, problem: Problem, force: Callable[[State], State], *, points: int, radius: float) -> None:
        z = problem.free.z
        angles = [2.0 * math.pi * k / points for k in range(points // 2 + 1)]
        self._problem = problem
        self._force = force
        if points == 2:
            nudges, kind = torch.tensor([radius, -radius], dtype=z.dtype), z.dtype
        else:
            kind = z.dtype.to_complex()
            nudges = torch.tensor([cmath.rect(radius, angle) for angle in angles], dtype=kind)
        self._nudges = nudges.view(-1, 1, 1, 1).to(z.device)
        # How many of all nudges a state stands for: itself, and its conjugate.
        self._counts = [1.0 if k in (0, points // 2) else 2.0 for k in range(points // 2 + 1)]
        self._points = points
        self._states = z.to(kind).expand(len(angles), *z.shape).clone()

    def advance(self) -> None:
        """Take one step."""
        with torch.no_grad():
            rate = self._force(self._states) - self._nudges * self._problem.readout.force(self._states)
            self._states = self._states + step_of(self._problem) * rate

    def adjoint(self) -> Vector:
        """The mean over all nudges."""
        contrast = (self._states - self._problem.free.z) / self._nudges
        contrast = contrast.real if contrast.is_complex() else contrast
        counts = torch.tensor(self._counts, dtype=contrast.dtype, device=contrast.device)
        total: Tensor = torch.tensordot(counts, contrast, dims=1)
        return total / self._points

    def residual(self, adjoint: Vector) -> Tensor:
        """|J'a - g| / |g| at the free state."""
        return self._problem.adjoint_residual(adjoint)

    def states(self) -> State:
        """The states of the upper half plane."""
        return self._states


def step_of(problem: Problem) -> float:
    """The size of a nudged step."""
    return min(problem.config.nudged_step, problem.field.largest_step)


def corrected(problem: Problem, *, compensated: bool = False) -> Callable[[State], State]:
    """F(z) - (J - J')(z - z*) with J at the free state: its Jacobian there is J', as the adjoint equation wants it.

    With ``compensated`` the free residual F(z*) is taken off as well, so that the free state is at rest.
    """
    linearised, z = problem.linearised, problem.free.z
    rest = linearised.value if compensated else torch.zeros_like(z)

    def force(states: State) -> State:
        far = states - z
        return problem.field(states) - rest - linearised.times(far) + linearised.transposed(far)

    return force
