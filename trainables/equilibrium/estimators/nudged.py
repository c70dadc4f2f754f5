"""The nudged phase: states relax under a weak pull of the loss, and the best of their contrasts is the estimate.

Every so many steps the adjoint residual says how good the contrast is at that moment. The best is kept; the phase ends
where it is good enough, after some readings without gain, or where it blows up. A field that is not contractive under
the nudge blows up after a while, and a phase that is too short has not settled: neither is seen without this check.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from trainables.equilibrium.estimators.api import Estimate, Evidence, Problem, Stopped
from trainables.equilibrium.field.api import State
from trainables.equilibrium.linearised import Vector

PATIENCE = 6
"""Readings without gain after which the phase ends."""
BLOWN_UP = 1e3
"""Adjoint residual at which it ends."""


class Dynamics(Protocol):
    """States under a nudge."""

    def advance(self) -> None:
        """Take one step."""
        ...

    def adjoint(self) -> Vector:
        """The estimate of a from the contrast of the states as they are."""
        ...

    def residual(self, adjoint: Vector) -> Tensor:
        """|J'a - g| / |g| of that estimate."""
        ...

    def states(self) -> State:
        """(nudges, batch, time, width): the states; the first is of a positive nudge."""
        ...


def nudge(problem: Problem, dynamics: Dynamics) -> Estimate:
    """Run the nudged phase and take the estimate that the config's rule selects."""
    config = problem.config
    every = config.select_every if config.select or config.t2_tol is not None else config.t2
    best: tuple[Vector, Evidence] | None = None
    without_gain = 0
    stopped: Stopped = "end"
    for step in range(1, config.t2 + 1):
        dynamics.advance()
        if step % every and step != config.t2:
            continue
        adjoint = dynamics.adjoint()
        rho = float(dynamics.residual(adjoint))
        if best is None or not config.select or rho < best[1].rho:
            best = adjoint, Evidence(rho, step, step, "end", *_distances(problem, dynamics.states()))
            without_gain = 0
        else:
            without_gain += 1
        reason = _reason(rho, without_gain, config.t2_tol)
        if reason is not None:
            stopped = reason
            break
    assert best is not None
    adjoint, found = best
    return problem.estimate(adjoint, replace(found, steps=step, stopped=stopped))


def _reason(rho: float, without_gain: int, tolerance: float | None) -> Stopped | None:
    if not math.isfinite(rho) or rho > BLOWN_UP:
        return "diverged"
    if tolerance is not None and rho <= tolerance:
        return "tolerance"
    return "patience" if without_gain >= PATIENCE else None


def _distances(problem: Problem, states: State) -> tuple[float, float]:
    """How far the first state and the mean of all are from the free state, by its norm."""
    z = problem.free.z
    far = torch.stack([(states[0] - z).abs().norm(), (states.mean(dim=0) - z).abs().norm()]) / z.norm()
    moved, drift = far.tolist()
    return moved, drift
