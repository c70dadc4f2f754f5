"""`aep_frozen` with its free residual compensated: dz = F(z) - F(z*) - (J - J')(z - z*) - beta g(z).

The free state is at rest whatever its residual. What is left is the instability of large nudges.
"""

from __future__ import annotations

from trainables.equilibrium.estimators.api import Estimate, Problem
from trainables.equilibrium.estimators.contour import Contour, corrected
from trainables.equilibrium.estimators.nudged import nudge


def aep_frozen_rc(problem: Problem) -> Estimate:
    """The estimate from two nudges of opposite signs."""
    force = corrected(problem, compensated=True)
    return nudge(problem, Contour(problem, force, points=2, radius=problem.config.beta))
