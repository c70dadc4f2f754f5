"""Is the best one ahead because of its gradient, or because it has come further along its learning rate?

What it is: the best loss so far over the sum of learning rates of all steps until then, which bounds the path that Adam
can have gone, beside the same over steps. Candidates are compared with the control at equal steps and at equal path,
paired by seed, with Student's t. A larger learning rate looks better at equal steps for a while, whatever the
estimator.
What it is not: a claim. Who is compared was chosen for being good, and the schedules may stand at other places.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, answer, diagnostic
from analysis.diagnose.verdicts import shown
from analysis.language.finishers import ONE_LOOK, matched, members, name, settings, value_of
from analysis.search.best_so_far import BestSoFar
from analysis.stats.interval import Interval, mean_interval
from analysis.view import Candidate, Member, Run

_FAMILY = "equilibrium"
_MAX_SHOWN = 6

Curves = dict[int, BestSoFar]


@diagnostic("Loss over the learning rate summed up, beside steps", needs="records")
def path_length(run: Run) -> Finding:
    """Return a finding with values for each candidate that was scored at the end: ``path``, its summed learning rate;
    ``minus_control_at_equal_steps`` and ``minus_control_at_equal_path`` in nats per token, below zero where better.
    """
    control = run.control
    if control is None:
        raise NoEvidence("There is no control to compare with.")
    scored = [run.candidates[entry.candidate] for entry in run.gates[-1] if entry.candidate != control.id]
    compared = [one for one in (control, *scored) if members(one) and settings(one, _FAMILY) is not None]
    if compared[:1] != [control] or len(compared) < 2:
        raise NoEvidence("Beside the control no candidate has come to the end of the last stage with a finite loss.")
    return judge(compared)


def judge(compared: list[Candidate]) -> Finding:
    """The finding on the control, which is the first, and the others, the best first."""
    control, *others = compared
    values: dict[str, Value] = {}
    for candidate in compared:
        ends = [curve.places[-1] for curve in over_path(candidate).values()]
        values[value_of(candidate, "path")] = max(ends, default=math.nan)
    differences = {}
    for candidate in others:
        pair = [_difference(curves(candidate), curves(control)) for curves in (over_steps, over_path)]
        differences[candidate.id] = pair
        values[value_of(candidate, "minus_control_at_equal_steps")] = pair[0]
        values[value_of(candidate, "minus_control_at_equal_path")] = pair[1]
    best = others[0]
    by_steps, by_path = differences[best.id]
    if not (math.isfinite(by_steps.value) and math.isfinite(by_path.value)):
        raise NoEvidence(f"{name(best)} and the control have no seed in common.")
    said = (
        f"At equal steps {name(best)} is {_better(by_steps)} than the control, at an equal sum of learning rates "
        f"{_better(by_path)}"
    )
    if (by_steps.value < 0.0) != (by_path.value < 0.0):
        verdict, meaning = "warn", "the difference is how far it has come along its learning rate"
    elif math.isfinite(by_path.low) and (by_path.low > 0.0) == (by_path.high > 0.0):
        verdict, meaning = "pass", "the two agree"
    else:
        verdict, meaning = "warn", "the two agree, though not beyond the spread of seeds"
    return answer(verdict, f"{said}: {meaning}. {ONE_LOOK}.", values, {}, _plots(compared))  # type: ignore[arg-type]


def over_steps(candidate: Candidate) -> Curves:
    """The best loss so far over steps, by seed."""
    return {
        seed: _curve(member, [float(r.step) for r in member.reports]) for seed, member in members(candidate).items()
    }


def over_path(candidate: Candidate) -> Curves:
    """The same over the sum of the learning rates of all steps so far, in closed form from the config."""
    config = settings(candidate, _FAMILY)
    assert config is not None
    some = members(candidate)
    sums = _sums(config, max((member.steps for member in some.values()), default=0))
    return {seed: _curve(member, [sums[r.step] for r in member.reports]) for seed, member in some.items()}


def _sums(config: Any, steps: int) -> list[float]:
    """Sum of the learning rates of the first 0, 1, 2 ... steps."""
    return [0.0, *accumulate(config.lr_at(step) for step in range(steps))]


def _curve(member: Member, places: list[float]) -> BestSoFar:
    values = (report.value for report in member.reports)
    return BestSoFar.of(zip(places, values, strict=True), sign=1.0, keeps=False)


def _difference(ours: Curves, theirs: Curves) -> Interval:
    """At the furthest place that all have reached; NaN without a common seed."""
    place, seeds = matched((ours, theirs))
    return mean_interval([ours[seed].between(place) - theirs[seed].between(place) for seed in seeds])


def _better(difference: Interval) -> str:
    return f"{shown(difference.size)} nats per token {'better' if difference.value < 0.0 else 'worse'}"


def _plots(compared: list[Candidate]) -> tuple[Plot, ...]:
    some = compared[:_MAX_SHOWN]
    plots = []
    for title, x_label, curves in (
        ("Best loss so far over summed learning rates", "sum of learning rates", over_path),
        ("Best loss so far over steps", "optimiser steps", over_steps),
    ):
        series = tuple(_mean(name(candidate), curves(candidate)) for candidate in some)
        plots.append(Plot(title, x_label, "val_ce (nats per token)", series=series))
    return tuple(plots)


def _mean(label: str, curves: Curves) -> Series:
    """Mean over seeds where all are there, from the lowest to the highest."""
    first = max(curve.places[0] for curve in curves.values())
    last = min(curve.end for curve in curves.values())
    places = sorted({place for curve in curves.values() for place in curve.places if first <= place <= last})
    at = [[curve.between(place) for curve in curves.values()] for place in places]
    means = tuple(math.fsum(some) / len(some) for some in at)
    return Series(label, tuple(places), means, tuple(map(min, at)), tuple(map(max, at)))
