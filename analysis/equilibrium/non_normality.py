"""How far is the Jacobian of this model from its transpose?

What it is: |J v - J'v| / |J v| at the free state, in random directions and in that of the exact adjoint. Plain
equilibrium propagation solves the equation with J in place of J', so this is what it has wrong; a correction that is
frozen at the free state is as large as this, and above 0.9 the field under it blows up or turns round (H37). Tracking
and dyadic forms do not depend on it.
What it is not: the error of the gradient, which also depends on where the loss pulls.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from analysis.diagnose.api import Finding, Plot, Series, Value, Verdict, answer, diagnostic
from analysis.diagnose.verdicts import shown, verdict
from analysis.equilibrium.looked import exact, own_name, problem_of
from analysis.stats.bootstrap import mean_interval
from analysis.stats.interval import Interval
from trainables.arrays import Array
from trainables.equilibrium.config import FROZEN
from trainables.equilibrium.linearised import Linearised
from trainables.training.seeding import make_generator

MOST = 0.9
"""Where the estimator relies on a Jacobian that is its own transpose, or on one that is frozen."""
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
    name, relies = own_name(subject.config), subject.config.estimator in ("ep", *FROZEN)
    return judge(name, relies, random.cpu().double().numpy(), along.cpu().double().numpy())


def ratios(jacobian: Linearised, v: Tensor) -> Tensor:
    """|J v - J'v| / |J v| of each sequence."""
    forward = jacobian.times(v)
    skew = forward - jacobian.transposed(v)
    lengths = [some.flatten(1).square().sum(dim=1).sqrt() for some in (skew, forward)]
    return lengths[0] / lengths[1]


def judge(name: str, relies: bool, random: Array, along: Array) -> Finding:
    """The finding on ratios by sequence; ``relies``: whether the estimator needs J to be near its transpose."""
    over, of_adjoint = mean_interval(random, block=1), mean_interval(along, block=1)
    values: dict[str, Value] = {"non_normality": over, "non_normality_of_adjoint": of_adjoint}
    found: Verdict = verdict(over, lambda value: value <= MOST)
    said = f"J and J' differ by {shown(over, 2)} of J in random directions, by {shown(of_adjoint, 2)} along the adjoint"
    if not relies:
        found = "pass" if found != "no_evidence" else found
        summary = f"{said}; {name} does not depend on it."
    else:
        means = {
            "pass": f"near enough for {name}, if nothing else is wrong",
            "warn": f"at the bound of what {name} stands",
            "fail": f"{name} is of no use here, and tracking forms are",
            "no_evidence": "not finite",
        }
        summary = f"{said}: {means[found]}."
    return answer(found, summary, values, {"non_normality": MOST} if relies else {}, (_plot(over, of_adjoint),))


def _plot(over: Interval, along: Interval) -> Plot:
    return Plot(
        "Distance of the Jacobian from its transpose",
        "direction",
        "|J v - J'v| / |J v|",
        "points",
        (Series.of("mean over sequences", [over, along]),),
        lines={"most": MOST},
        x_ticks=("random", "of the adjoint"),
    )
