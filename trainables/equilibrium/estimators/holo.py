"""Holomorphic equilibrium propagation (Laborieux & Zenke 2022) with the frozen correction of `aep_frozen`.

Nudges lie on a circle in the complex plane; with N of them the error in the radius is of order N. The correction is
frozen, for with more than two states there is no common mode to be followed.
"""

from __future__ import annotations

from trainables.equilibrium.estimators.api import Estimate, Problem
from trainables.equilibrium.estimators.contour import Contour, corrected
from trainables.equilibrium.estimators.nudged import nudge


def holo(problem: Problem) -> Estimate:
    """The estimate from the mean over ``holo_points`` nudges."""
    config = problem.config
    force = corrected(problem)
    return nudge(problem, Contour(problem, force, points=config.holo_points, radius=config.holo_radius))
