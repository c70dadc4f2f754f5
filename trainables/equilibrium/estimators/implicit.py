"""The adjoint equation J'a = g solved at the free state by GMRES: what all other estimators are held against."""

from __future__ import annotations

import torch

from trainables.equilibrium.estimators.api import Estimate, Evidence, Problem
from trainables.equilibrium.linearised import gmres

RESTART = 20
"""Products before the solution is updated: as many states are held."""
TOLERANCE = 1e-4


def implicit(problem: Problem) -> Estimate:
    """The estimate after up to ``t2`` products with J', fewer where it is exact to ``t2_tol`` (else 1e-4)."""
    config = problem.config
    return solved(problem, products=config.t2, tolerance=TOLERANCE if config.t2_tol is None else config.t2_tol)


def solved(problem: Problem, *, products: int, tolerance: float) -> Estimate:
    """The estimate after about ``products``, or at an adjoint residual of ``tolerance``."""
    restart = min(RESTART, products)
    adjoint, rho, taken = gmres(
        problem.linearised.transposed,
        problem.pull,
        restart=restart,
        cycles=max(1, products // restart),
        tolerance=tolerance,
    )
    if not bool(torch.isfinite(adjoint).all()):
        return problem.estimate(adjoint, Evidence(rho, taken, taken, "diverged"))
    return problem.estimate(adjoint, Evidence(rho, taken, taken, "tolerance" if rho <= tolerance else "end"))
