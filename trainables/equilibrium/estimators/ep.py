"""Equilibrium propagation as it was first written (Scellier & Bengio 2017): dz = F(z) - beta g(z).

The contrast tends to J^-1 g, which is the adjoint only where the Jacobian is symmetric (Scellier et al. 2018).
"""

from __future__ import annotations

from trainables.equilibrium.estimators.api import Estimate, Problem
from trainables.equilibrium.estimators.contour import Contour
from trainables.equilibrium.estimators.nudged import nudge


def ep(problem: Problem) -> Estimate:
    """The estimate from two nudges of opposite signs (Laborieux et al. 2021)."""
    return nudge(problem, Contour(problem, problem.field, points=2, radius=problem.config.beta))
