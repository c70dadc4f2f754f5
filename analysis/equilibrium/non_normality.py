"""How far is the Jacobian of this model from its transpose?

What it is: |J v - J'v| / |J v| at the free state, in random directions and in that of the exact adjoint a. Plain
equilibrium propagation solves the equation with J in place of J', so that its estimate is off by about this share of a
across it: judged is that direction, by the tangent of the angle. A correction that is frozen at the free state is as
large as this in any direction, and above 0.9 the field under it blows up or turns round (H37). Tracking and dyadic
forms do not depend on it.
What it is not: the error of the gradient, which also depends on where the loss pulls.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from analysis.diagnose.api import Finding, Plot, Series, Value, answer, diagnostic
from analysis.diagnose.verdicts import shown, verdict
from analysis.equilibrium.looked import RIGHT, exact, problem_of
from analysis.stats.bootstrap import mean_interval
from analysis.stats.interval import Interval
from trainables.arrays import Array
from trainables.equilibrium.config import FROZEN, EstimatorName
from trainables.equilibrium.linearised import Linearised
from trainables.training.seeding import make_generator

MOST = 0.9
"""In random directions, where the estimator freezes the Jacobian."""
MOST_OF_ADJOINT = math.sqrt(1.0 / RIGHT**2 - 1.0)
"""In that of the adjoint, where it takes the Jacobian for its own transpose: the tangent of 18 degrees."""
_DIRECTIONS = 8


@diagnostic("distance of the Jacobian from its transpose")
def non_normality(subject: Any) -> Finding:
    """Return a finding with values ``non_normality`` over random directions, with a bootstrap over sequences, and
    ``non_normality_of_adjoint`` in the direction of the exact adjoint.
    """
    problem = problem_of(subject, 16)
    z = problem.free.z
    generator = make_generator(0, "non-normality by direction")
    drawn = [torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z) for _ in range(_DIRECTIONS)]
    random = torch.stack([ratios(problem.linearised, v) for v in drawn]).mean(dim=0)
    adjoint = exact(problem).adjoint
    assert adjoint is not None
    along = ratios(problem.linearised, adjoint)
    return judge(subject.config.estimator, random.cpu().double().numpy(), along.cpu().double().numpy())


def ratios(jacobian: Linearised, v: Tensor) -> Tensor:
    """|J v - J'v| / |J v| of each sequence."""
    forward = jacobian.times(v)
    skew = forward - jacobian.transposed(v)
    lengths = [some.flatten(1).square().sum(dim=1).sqrt() for some in (skew, forward)]
    return lengths[0] / lengths[1]


def judge(name: EstimatorName, random: Array, along: Array) -> Finding:
    """The finding on ratios by sequence, in random directions and along the adjoint, for the estimator ``name``."""
    over, of_adjoint = mean_interval(random, block=1), mean_interval(along, block=1)
    values: dict[str, Value] = {"non_normality": over, "non_normality_of_adjoint": of_adjoint}
    said = f"J and J' differ by {shown(over, 2)} of J in random directions, by {shown(of_adjoint, 2)} along the adjoint"
    threshold: dict[str, float] = {}
    if name in FROZEN:
        found, threshold = verdict(over, lambda value: value <= MOST), {"non_normality": MOST}
    elif name == "ep":
        found = verdict(of_adjoint, lambda value: value <= MOST_OF_ADJOINT)
        threshold = {"non_normality_of_adjoint": MOST_OF_ADJOINT}
    else:
        found = "pass" if math.isfinite(over.value) else "no_evidence"
    means = {
        "pass": f"near enough for {name}" if threshold else f"{name} does not depend on it",
        "warn": f"at the bound of what {name} stands",
        "fail": f"more than {name} stands; tracking forms do not depend on it",
        "no_evidence": "not finite",
    }
    return answer(found, f"{said}: {means[found]}.", values, threshold, (_plot(over, of_adjoint),))


def _plot(over: Interval, along: Interval) -> Plot:
    return Plot(
        "Distance of the Jacobian from its transpose",
        "direction",
        "|J v - J'v| / |J v|",
        "points",
        (Series.of("mean over sequences", [over, along]),),
        lines={"most of frozen forms, at random": MOST, "most of ep, along the adjoint": MOST_OF_ADJOINT},
        x_ticks=("random", "of the adjoint"),
    )
