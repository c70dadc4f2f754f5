"""The stop and promote rules on curves: pure functions of numbers, standard library only. Lower is better throughout.

What ranks candidates against each other is in `tune_rh.policy`; these rules look at one member, or at one candidate
beside the control.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from tune_rh.plan import HealthBound, PromoteRule, Rules, SearchPlan, StopRule

# Two-sided 95% quantiles of Student's t by degrees of freedom (1..30); beyond that the normal's 1.96 is used.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


class Curve:
    """What a member has reported: steps, objective (minimised), metrics; kept in order of steps.

    A step reported twice counts once, as first seen. ``best`` is the lowest finite value so far, +inf if none.
    """

    __slots__ = ("best", "best_step", "metrics", "steps", "values")

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[float] = []
        self.metrics: list[dict[str, float]] = []
        self.best = math.inf
        self.best_step = 0

    def add(self, step: int, value: float, metrics: dict[str, float]) -> bool:
        """Append a report; False if this step (or a later one) is known already."""
        if self.steps and step <= self.steps[-1]:
            return False
        self.steps.append(step)
        self.values.append(value)
        self.metrics.append(metrics)
        if value < self.best:
            self.best, self.best_step = value, step
        return True

    def best_before(self, count: int) -> float:
        """The best value leaving out the last ``count`` reports."""
        return min((v for v in self.values[:-count] if not math.isnan(v)), default=math.inf)


def ending(
    plan: SearchPlan, curve: Curve, patience_steps: int | None, diverged: bool, protected: bool
) -> tuple[Literal["diverged", "completed", "stopped"], str] | None:
    """How a member ends with its last report, and why; None if it may go on (or wait at a gate).

    Args:
        plan: the plan.
        curve: the member's, with the last report in it.
        patience_steps: the candidate's own patience; None: the plan's.
        diverged: what the last report says.
        protected: the control of a search is never stopped.
    """
    step = curve.steps[-1] if curve.steps else 0
    if diverged:
        return "diverged", f"non-finite loss at step {step}"
    if step >= plan.stages[-1].until_step:
        return "completed", "end of the last stage"
    reason = None if protected else stop_reason(plan.rules, curve, patience_steps)
    return None if reason is None else ("stopped", reason)


def stop_reason(rules: Rules, curve: Curve, patience_steps: int | None = None) -> str | None:
    """Why a member should stop now, or None. Divergence is not looked at here: it comes with the report.

    ``patience_steps`` is the candidate's own, in place of the plan's.
    """
    if not curve.steps:
        return None
    patience = patience_steps or rules.patience_steps
    if patience is not None:
        stale = curve.steps[-1] - curve.best_step
        if stale >= patience:
            return f"patience: no new best for {stale} steps (patience_steps = {patience})"
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
    points = [
        (step, metrics["train_loss"])
        for step, metrics in zip(curve.steps[-window - 1 :], curve.metrics[-window - 1 :], strict=True)
        if math.isfinite(metrics.get("train_loss", math.nan))
    ]
    if len(points) < 3 or not is_flat(points, rule.slope):
        return False
    return not any(_improved(name, curve, window) for name in rule.health_metrics)


def _improved(metric: str, curve: Curve, window: int) -> bool:
    before = curve.metrics[-window - 1].get(metric, math.nan)
    now = curve.metrics[-1].get(metric, math.nan)
    return now > before


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
    quantile = _T95[n - 3] if n - 2 <= len(_T95) else 1.96
    return slope + quantile * error >= 0 or -slope * 1000 < slope_per_1k


def promotable_by_rule(
    rule: PromoteRule, score: float, control: float, health: float = math.nan, control_health: float = math.nan
) -> Literal["margin", "health"] | None:
    """``"margin"``, ``"health"`` or None, for a candidate's score beside the control's at the same gate."""
    if score <= control - rule.margin:
        return "margin"
    if rule.tolerance is not None and score <= control + rule.tolerance and is_healthier(rule, health, control_health):
        return "health"
    return None


def is_healthier(rule: PromoteRule, health: float, control_health: float) -> bool:
    """Whether ``health`` is better than the control's by the rule's factor; a NaN never is."""
    bound = rule.health_factor * control_health
    return health >= bound if rule.health_factor >= 1 else health <= bound


def is_healthy(bounds: Sequence[HealthBound], means: dict[str, float]) -> bool:
    """Whether every bounded metric is inside its bounds; a metric that was not reported is unhealthy."""
    for bound in bounds:
        value = means.get(bound.metric, math.nan)
        if bound.at_least is not None and not value >= bound.at_least:
            return False
        if bound.at_most is not None and not value <= bound.at_most:
            return False
    return True
