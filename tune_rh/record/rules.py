"""The stop and promote rules on curves: pure functions of numbers. Lower is better throughout.

What ranks candidates against each other is in `tune_rh.decide.halving`; these rules look at one member, or at one
candidate beside the control.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from operator import itemgetter
from statistics import fmean
from types import MappingProxyType
from typing import Literal, overload

from analysis.stats.student import t_quantile
from analysis.view import Alarm
from trainables.worker.report import HealthFinding
from tune_rh.plan.rules import GapRule, HealthBound, Healthier, Improved, PromoteRule, Rules, StopRule
from tune_rh.plan.schema import Plan

_CALM_REPORTS = 3
"""So many reports in a row within its bounds end an episode of a metric that was out of them."""


class Metrics(Sequence[Mapping[str, float]]):
    """The metrics of a member's reports, in order: numbers in one array, names once for reports that follow each other.

    A large run has millions of numbers; as dicts of floats they take six times the memory.
    """

    __slots__ = ("_layouts", "_num", "_numbers")

    def __init__(self) -> None:
        self._num = 0
        self._numbers = array("d")
        self._layouts: list[tuple[int, int, tuple[str, ...]]] = []
        """Whenever the names change: the first report with them, the place of its first number, and the names."""

    def append(self, metrics: Mapping[str, float]) -> None:
        """Add a report's."""
        names = tuple(metrics)
        if not self._layouts or self._layouts[-1][2] != names:
            self._layouts.append((self._num, len(self._numbers), names))
        self._numbers.extend(metrics.values())
        self._num += 1

    def __len__(self) -> int:
        return self._num

    @overload
    def __getitem__(self, index: int) -> Mapping[str, float]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, float]]: ...

    def __getitem__(self, index: int | slice) -> Mapping[str, float] | Sequence[Mapping[str, float]]:
        if isinstance(index, slice):
            return [self[i] for i in range(self._num)[index]]
        number = range(self._num)[index]
        first, start, names = self._layouts[bisect_right(self._layouts, number, key=itemgetter(0)) - 1]
        start += (number - first) * len(names)
        numbers = self._numbers[start : start + len(names)]
        # One object for every NaN, as the codec of events has it: reports with the same metrics are equal.
        return {name: x if x == x else math.nan for name, x in zip(names, numbers, strict=True)}


class Curve:
    """What a member has reported: steps, objective (minimised), metrics; kept in order of steps.

    A step reported twice counts once, as first seen. ``best`` is the lowest finite value so far, +inf if there is none;
    ``findings`` are those of live health.
    """

    __slots__ = ("best", "best_step", "findings", "metrics", "steps", "values")

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[float] = []
        self.metrics = Metrics()
        self.findings: list[HealthFinding] = []
        self.best = math.inf
        self.best_step = 0

    def add(
        self, step: int, value: float, metrics: Mapping[str, float], findings: Iterable[HealthFinding] = ()
    ) -> bool:
        """Append a report; False if this step (or a later one) is known already."""
        if self.steps and step <= self.steps[-1]:
            return False
        self.steps.append(step)
        self.values.append(value)
        self.metrics.append(metrics)
        self.findings += findings
        if -math.inf < value < self.best:
            self.best, self.best_step = value, step
        return True

    def best_before(self, count: int) -> float:
        """The lowest finite value leaving out the last ``count`` reports, +inf if none."""
        return min((v for v in self.values[:-count] if math.isfinite(v)), default=math.inf)

    def best_until(self, step: int) -> float:
        """The lowest finite value up to and including ``step``, +inf if none."""
        end = bisect_right(self.steps, step)
        return min((v for v in self.values[:end] if math.isfinite(v)), default=math.inf)


def ending(
    plan: Plan, curve: Curve, patience_steps: int | None, diverged: bool, protected: bool
) -> tuple[Literal["diverged", "completed", "stopped"], str] | None:
    """How a member ends with its last report, and why; None if it may go on (or wait at a gate).

    Its candidate may have a patience of its own; a ``protected`` member is never stopped by a rule.
    """
    step = curve.steps[-1] if curve.steps else 0
    if diverged:
        return "diverged", f"non-finite loss at step {step}"
    if step >= plan.stages[-1].until_step:
        return "completed", "end of the last stage"
    reason = None if protected else stop_reason(plan.rules, curve, patience_steps)
    return None if reason is None else ("stopped", reason)


def stop_reason(rules: Rules, curve: Curve, patience_steps: int | None = None) -> str | None:
    """Why a member should stop now, or None; ``patience_steps`` is the candidate's own, in place of the plan's."""
    if not curve.steps:
        return None
    patience = patience_steps or rules.patience_steps
    if patience is not None:
        stale = curve.steps[-1] - curve.best_step
        if stale >= patience:
            return f"patience: no new best for {stale} steps (patience_steps = {patience})"
    sick = out_of_bounds([bound for bound in rules.health if bound.stops], [curve])
    if sick is not None:
        return sick
    broken = next((finding for finding in curve.findings if finding.rule in rules.live.stop), None)
    if broken is not None:
        return f"health: {broken}"
    if rules.stop is not None and plateau(rules.stop, curve):
        return (
            f"plateau: best improved less than {rules.stop.delta} over {rules.stop.window} evaluations, "
            "and the train loss is flat"
        )
    return None


def plateau(rule: StopRule, curve: Curve) -> bool:
    """Whether all conditions of the stop rule hold at the last report."""
    window = rule.window
    if len(curve.steps) <= window:
        return False
    if curve.best_before(window) - curve.best >= rule.delta:
        return False
    oldest = curve.steps[-window - 1] if rule.slope_steps is None else curve.steps[-1] - rule.slope_steps
    first = bisect_left(curve.steps, oldest)
    points = [
        (step, metrics["train_loss"])
        for step, metrics in zip(curve.steps[first:], curve.metrics[first:], strict=True)
        if math.isfinite(metrics.get("train_loss", math.nan))
    ]
    if len(points) < 3 or not is_flat(points, rule.slope):
        return False
    return not any(has_improved(wanted, curve, window) for wanted in rule.unless)


def has_improved(wanted: Improved, curve: Curve, window: int) -> bool:
    """Whether a metric has moved far enough over the last ``window`` reports; a metric that is missing has not."""
    before = curve.metrics[-window - 1].get(wanted.metric, math.nan)
    now = curve.metrics[-1].get(wanted.metric, math.nan)
    if wanted.rose_by is not None:
        return now - before >= wanted.rose_by
    assert wanted.fell_by is not None
    return now < before and before - now >= wanted.fell_by * abs(before)


def is_flat(points: Sequence[tuple[int, float]], slope_per_1k: float) -> bool:
    """Whether a line fitted to (step, loss) does not fall: its 95% interval reaches zero, or the decline is small.

    The interval is Student's t on the least-squares slope with n - 2 degrees of freedom.
    """
    n = len(points)
    mean_x = fmean(x for x, _ in points)
    mean_y = fmean(y for _, y in points)
    sxx = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sxx
    residual = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    error = math.sqrt(residual / (n - 2) / sxx)
    return slope + t_quantile(0.975, n - 2.0) * error >= 0 or -slope * 1000 < slope_per_1k


def promotable_by_rule(
    rule: PromoteRule,
    score: float,
    control: float,
    health: Mapping[str, float] = MappingProxyType({}),
    control_health: Mapping[str, float] = MappingProxyType({}),
) -> Literal["margin", "health"] | None:
    """``"margin"``, ``"health"`` or None, for a candidate's score beside the control's at the same gate."""
    if score <= control - rule.margin:
        return "margin"
    if rule.tolerance is not None and score <= control + rule.tolerance and is_healthier(rule, health, control_health):
        return "health"
    return None


def is_healthier(rule: PromoteRule, health: Mapping[str, float], control: Mapping[str, float]) -> bool:
    """Whether one of the rule's metrics is better than the control's by as much as it says."""
    return any(
        _is_better(wanted, health.get(wanted.metric, math.nan), control.get(wanted.metric, math.nan))
        for wanted in rule.healthier
    )


def _is_better(wanted: Healthier, value: float, control: float) -> bool:
    """NaN never is."""
    if wanted.factor is not None:
        bound = wanted.factor * control
        return value >= bound if wanted.factor >= 1 else value <= bound
    assert wanted.margin is not None
    bound = control + wanted.margin
    return value >= bound if wanted.margin >= 0 else value <= bound


def too_far_behind(rule: GapRule, first: Sequence[float], now: Sequence[float]) -> str | None:
    """Why a candidate is too far behind the control, or None; ``first`` and ``now`` are its distances seed by seed.

    A seed without a finite distance in both is left out; without any seed there is nothing to say.
    """
    pairs = [(a, b) for a, b in zip(first, now, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not pairs:
        return None
    began, stands = fmean(a for a, _ in pairs), fmean(b for _, b in pairs)
    if began > rule.first:
        return f"gap: {began:.4g} behind the control at the first evaluation (at most {rule.first:g})"
    if stands - began > rule.widening:
        return f"gap: from {began:.4g} to {stands:.4g} behind the control (at most {rule.widening:g} wider)"
    return None


def out_of_bounds(bounds: Iterable[HealthBound], curves: Sequence[Curve]) -> str | None:
    """Why a member, or a candidate by the mean over its members, is out of bounds; None if it is not.

    The last report of each curve is taken together, then the last but one of each, and so on. Of several bounds the
    first that is violated is named; ``curves`` are of members that were not lost.
    """
    for bound in bounds:
        values = list(islice(_means(bound, curves), bound.in_a_row))
        if len(values) == bound.in_a_row and not any(_is_inside(bound, value) for value in values):
            return f"health: {_violation(bound, values[0])}"
    return None


def alarms(rules: Rules, curve: Curve) -> list[Alarm]:
    """What live health and the bounds have found on a member's curve, each once an episode, in order of steps."""
    found = [Alarm(finding.rule, finding.step, finding.message) for finding in curve.findings]
    for bound in rules.health:
        outside = inside = 0
        firing = False
        for step, metrics in zip(curve.steps, curve.metrics, strict=True):
            if step <= bound.after_step or not (bound.required or bound.metric in metrics):
                continue
            value = metrics.get(bound.metric, math.nan)
            outside, inside = (0, inside + 1) if _is_inside(bound, value) else (outside + 1, 0)
            if outside >= bound.in_a_row and not firing:
                found.append(Alarm(bound.id or "bound", step, _violation(bound, value)))
            firing = (firing or outside >= bound.in_a_row) and inside < _CALM_REPORTS
    return sorted(found, key=lambda alarm: alarm.step)


def _violation(bound: HealthBound, value: float) -> str:
    limits = (("at least", bound.at_least), ("at most", bound.at_most))
    allowed = ", ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)
    times = "1 report" if bound.in_a_row == 1 else f"{bound.in_a_row} reports"
    return f"{bound.metric} = {value:.4g} for {times} ({allowed})"


def _means(bound: HealthBound, curves: Sequence[Curve]) -> Iterator[float]:
    """The bound's metric over the curves, from their last reports backwards; the reports that count."""
    for values in zip_longest(*(_backwards(bound, curve) for curve in curves)):
        yield fmean(value for value in values if value is not None)


def _backwards(bound: HealthBound, curve: Curve) -> Iterator[float]:
    for step, metrics in zip(reversed(curve.steps), reversed(curve.metrics), strict=True):
        if step <= bound.after_step:
            return
        if bound.required or bound.metric in metrics:
            yield metrics.get(bound.metric, math.nan)


def _is_inside(bound: HealthBound, value: float) -> bool:
    return (bound.at_least is None or value >= bound.at_least) and (bound.at_most is None or value <= bound.at_most)
