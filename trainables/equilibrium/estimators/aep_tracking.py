"""Equilibrium propagation with the correction at the moving common mode of two states, each held for itself.

dz+ = F(z+) - (J - J')d - beta g(z+), and the opposite for z-. The contrast is the difference of two nearly equal
states, so in float32 a weak nudge costs digits: `aep_dyadic` follows the same path without that loss.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from trainables.equilibrium.estimators.api import Estimate, Problem
from trainables.equilibrium.estimators.contour import step_of
from trainables.equilibrium.estimators.nudged import nudge
from trainables.equilibrium.estimators.tracking import Forces, Pair, forces
from trainables.equilibrium.linearised import Vector


def aep_tracking(problem: Problem) -> Estimate:
    """The estimate from two nudges of opposite signs."""
    return nudge(problem, _Two(problem))


class _Two:
    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._beta: float = problem.config.beta
        self._states: Pair = torch.stack([problem.free.z, problem.free.z])

    @cached_property
    def _forces(self) -> Forces:
        up, down = self._states
        return forces(self._problem, (up + down) / 2, (up - down) / 2)

    def advance(self) -> None:
        """Take one step."""
        (up, down), pull, transposed = self._forces.field, self._forces.pull, self._forces.transposed
        correction = (up - down) / 2 - transposed
        rate = torch.stack([up - correction - self._beta * pull[0], down + correction + self._beta * pull[1]])
        self._states = self._states + step_of(self._problem) * rate
        del self._forces

    def adjoint(self) -> Vector:
        """Half of the difference over the nudge."""
        return (self._states[0] - self._states[1]) / (2 * self._beta)

    def residual(self, adjoint: Vector) -> Tensor:
        """|J'a - g| / |g| at the common mode."""
        return self._forces.residual(self._beta)

    def states(self) -> Pair:
        """Both."""
        return self._states
