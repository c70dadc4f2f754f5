"""`aep_tracking` in the coordinates (zbar, d) of two states, their mean and half of their difference.

zbar += eps [(F+ + F-) / 2 - beta (g+ - g-) / 2] and d += eps [J(zbar)'d - beta (g+ + g-) / 2]. The same path, but d is
held as it is, and so loses no digits however weak the nudge.
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


def aep_dyadic(problem: Problem) -> Estimate:
    """The estimate from two nudges of opposite signs."""
    return nudge(problem, _Dyad(problem))


class _Dyad:
    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._beta: float = problem.config.beta
        self._common = problem.free.z
        self._contrast = torch.zeros_like(self._common)

    @cached_property
    def _forces(self) -> Forces:
        return forces(self._problem, self._common, self._contrast)

    def advance(self) -> None:
        """Take one step."""
        field, pull, eps = self._forces.field, self._forces.pull, step_of(self._problem)
        common = field.mean(dim=0) - self._beta * (pull[0] - pull[1]) / 2
        contrast = self._forces.transposed - self._beta * pull.mean(dim=0)
        self._common = self._common + eps * common
        self._contrast = self._contrast + eps * contrast
        del self._forces

    def adjoint(self) -> Vector:
        """Half of the difference over the nudge."""
        return self._contrast / self._beta

    def residual(self, adjoint: Vector) -> Tensor:
        """|J'a - g| / |g| at the common mode."""
        return self._forces.residual(self._beta)

    def states(self) -> Pair:
        """Both."""
        return torch.stack([self._common + self._contrast, self._common - self._contrast])
