"""The promote and stop rules on one curve."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tune_rh.plan import HealthBound, PromoteRule, Rules, StopRule
from tune_rh.rules import Curve, is_flat, is_healthy, plateau, promotable_by_rule, stop_reason


def curve(values: list[float], train: list[float] | None = None, **metrics: list[float]) -> Curve:
    """One report every 10 steps."""
    made = Curve()
    for i, value in enumerate(values):
        row = {name: column[i] for name, column in metrics.items()}
        if train is not None:
            row["train_loss"] = train[i]
        made.add(10 * (i + 1), value, row)
    return made


def test_a_curve_keeps_its_steps_in_order_and_counts_each_once() -> None:
    made = Curve()
    assert (made.best, made.best_step) == (math.inf, 0)
    assert made.add(10, 2.0, {})
    assert made.add(20, 1.0, {})
    assert not made.add(20, 0.0, {})
    assert not made.add(10, 0.0, {})
    assert made.add(30, 1.0, {})
    assert (made.steps, made.values) == ([10, 20, 30], [2.0, 1.0, 1.0])
    assert (made.best, made.best_step) == (1.0, 20)


def test_nan_and_infinity_are_never_the_best() -> None:
    made = curve([math.nan, math.inf, 3.0, math.nan])
    assert (made.best, made.best_step) == (3.0, 30)
    assert made.best_before(1) == 3.0
    assert made.best_before(2) == math.inf
    assert made.best_before(4) == math.inf
    assert curve([math.nan, math.nan]).best == math.inf


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        ([3.0, 2.0, 1.0], False),
        ([3.0, 1.0, 2.0, 2.0], False),
        ([3.0, 1.0, 2.0, 2.0, 2.0], True),
        ([3.0, 1.0, 1.0, 1.0, 1.0], True),
        ([1.0, 1.5, 1.5, 0.9], False),
    ],
)
def test_patience_counts_steps_since_the_best(values: list[float], stops: bool) -> None:
    reason = stop_reason(Rules(patience_steps=30), curve(values))
    assert (reason is not None) == stops
    if reason:
        assert reason == "patience: no new best for 30 steps (patience_steps = 30)"


def test_no_rule_and_no_report_stop_nobody() -> None:
    assert stop_reason(Rules(), curve([1.0] * 50, [1.0] * 50)) is None
    assert stop_reason(Rules(patience_steps=10, stop=StopRule()), Curve()) is None


FLAT = [1.0] * 6
RULE = StopRule(delta=0.02, slope=0.01, window=3)


def test_plateau_needs_a_flat_objective_and_a_flat_train_loss() -> None:
    falling = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    assert plateau(RULE, curve(FLAT, FLAT))
    assert not plateau(RULE, curve(falling, FLAT))
    assert not plateau(RULE, curve(FLAT, falling))
    assert not plateau(RULE, curve(falling, falling))
    assert stop_reason(Rules(stop=RULE), curve(FLAT, FLAT)) == (
        "plateau: best improved less than 0.02 over 3 evaluations, and the train loss is flat"
    )


def test_plateau_needs_a_whole_window_and_its_train_losses() -> None:
    assert not plateau(RULE, curve([1.0] * 3, [1.0] * 3))
    assert plateau(RULE, curve([1.0] * 4, [1.0] * 4))
    assert not plateau(RULE, curve(FLAT))
    gaps = [1.0, 1.0, 1.0, math.nan, math.nan, 1.0]
    assert not plateau(RULE, curve(FLAT, gaps))
    assert plateau(RULE, curve(FLAT, [1.0, 1.0, 1.0, 1.0, math.nan, 1.0]))


def test_delta_is_the_smallest_improvement_that_counts() -> None:
    assert plateau(RULE, curve([1.0, 1.0, 1.0, 1.0 - 0.0199], FLAT[:4]))
    assert not plateau(RULE, curve([1.0, 1.0, 1.0, 1.0 - 0.0201], FLAT[:4]))
    assert not plateau(StopRule(delta=0.0), curve(FLAT, FLAT))


def test_plateau_waits_for_health_that_improves() -> None:
    rule = StopRule(window=3, health_metrics=("entropy",))
    assert plateau(rule, curve(FLAT, FLAT, entropy=FLAT))
    assert plateau(rule, curve(FLAT, FLAT, entropy=[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]))
    assert not plateau(rule, curve(FLAT, FLAT, entropy=[0.0, 0.0, 0.0, 0.0, 0.0, 0.1]))
    assert plateau(rule, curve(FLAT, FLAT))


@given(
    st.lists(st.floats(-10, 10), min_size=3, max_size=40),
    st.floats(0, 1),
)
def test_flatness_is_that_of_a_least_squares_fit(losses: list[float], slope: float) -> None:
    points = [(100 * (i + 1), loss) for i, loss in enumerate(losses)]
    xs, ys = zip(*points, strict=True)
    fit = stats.linregress(xs, ys)
    quantile = stats.t.ppf(0.975, len(points) - 2) if len(points) <= 32 else 1.96
    upper = fit.slope + quantile * (0.0 if math.isnan(fit.stderr) else fit.stderr)
    decline = -fit.slope * 1000
    if abs(upper) > 1e-6 and abs(decline - slope) > 1e-6:
        assert is_flat(points, slope) == (upper >= 0 or decline < slope)


PROMOTE = PromoteRule(margin=0.05, tolerance=0.01, health_metric="health", health_factor=1.1)


@pytest.mark.parametrize(
    ("rule", "score", "health", "reason"),
    [
        (PROMOTE, 0.9, 0.0, "margin"),
        (PROMOTE, 0.949, math.nan, "margin"),
        (PROMOTE, 0.951, 1.0, None),
        (PROMOTE, 0.951, 1.2, "health"),
        (PROMOTE, 1.009, 1.2, "health"),
        (PROMOTE, 1.011, 1.2, None),
        (PROMOTE, 1.0, 1.05, None),
        (PROMOTE, 1.0, math.nan, None),
        (PROMOTE, math.nan, 1.2, None),
        (PROMOTE, math.inf, 1.2, None),
        (PROMOTE.model_copy(update={"health_factor": 0.9}), 1.0, 0.8, "health"),
        (PROMOTE.model_copy(update={"health_factor": 0.9}), 1.0, 0.95, None),
        (PromoteRule(margin=0.05), 1.0, 9.0, None),
        (PromoteRule(margin=0.0), 1.0, 9.0, "margin"),
    ],
)
def test_promotion_by_margin_and_by_health(rule: PromoteRule, score: float, health: float, reason: str | None) -> None:
    assert promotable_by_rule(rule, score, 1.0, health, 1.0) == reason


def test_a_control_without_health_promotes_nobody_by_health() -> None:
    assert promotable_by_rule(PROMOTE, 1.0, 1.0, 1.2, math.nan) is None


@pytest.mark.parametrize(
    ("means", "healthy"),
    [
        ({"a": 0.5, "b": 0.5}, True),
        ({"a": 0.2, "b": 0.8}, True),
        ({"a": 0.1, "b": 0.5}, False),
        ({"a": 0.5, "b": 0.9}, False),
        ({"a": math.nan, "b": 0.5}, False),
        ({"b": 0.5}, False),
        ({}, False),
    ],
)
def test_health_bounds(means: dict[str, float], healthy: bool) -> None:
    bounds = (HealthBound(metric="a", at_least=0.2), HealthBound(metric="b", at_least=0.2, at_most=0.8))
    assert is_healthy(bounds, means) == healthy
    assert is_healthy((), means)
