"""Equilibrium propagation with the antisymmetric part of the Jacobian turned round, frozen at the free state.

dz = F(z) - (J - J')(z - z*) - beta g(z). Biased where the free phase has not settled: its residual drives the states
away from z*, under a Jacobian that is no longer theirs; and unstable once the Jacobian is far from normal.
"""

from __future__ import annotations

from trainables.equilibrium.estimators.api import Estimate, Problem
from trainables.equilibrium.estimators.contour import Contour, corrected
from trainables.equilibrium.estimators.nudged import nudge


def aep_frozen(problem: Problem) -> Estimate:
    """The estimate from two nudges of opposite signs."""
    return nudge(problem, Contour(problem, corrected(problem), points=2, radius=problem.config.beta))
