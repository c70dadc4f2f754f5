"""The promote and stop rules on one curve."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tune_rh.plan.rules import GapRule, HealthBound, Healthier, Improved, PromoteRule, Rules, StopRule
from tune_rh.record.rules import (
    Curve,
    alarms,
    has_improved,
    is_flat,
    out_of_bounds,
    plateau,
    promotable_by_rule,
    stop_reason,
    too_far_behind,
)


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


def test_a_metric_that_still_moves_keeps_its_member_going() -> None:
    rule = StopRule(
        window=3, unless=(Improved(metric="entropy", rose_by=0.005), Improved(metric="load_max", fell_by=0.05))
    )
    still, low = [0.5] * 6, [0.8] * 6
    assert plateau(rule, curve(FLAT, FLAT))
    assert plateau(rule, curve(FLAT, FLAT, entropy=still, load_max=low))
    assert plateau(rule, curve(FLAT, FLAT, entropy=[5.0, 4.0, 3.0, 2.0, 1.0, 0.0], load_max=low))
    assert plateau(rule, curve(FLAT, FLAT, entropy=[0.5] * 5 + [0.504], load_max=low))
    assert not plateau(rule, curve(FLAT, FLAT, entropy=[0.5] * 5 + [0.505], load_max=low))
    assert not plateau(rule, curve(FLAT, FLAT, entropy=still, load_max=[0.8] * 3 + [0.75, 0.75, 0.75]))
    assert plateau(rule, curve(FLAT, FLAT, entropy=still, load_max=[0.75, 0.75, 0.75, 0.8, 0.8, 0.77]))
    # What rose before the window began keeps nobody.
    assert plateau(rule, curve(FLAT, FLAT, entropy=[0.1, 0.2, 0.5, 0.5, 0.5, 0.5], load_max=low))


@pytest.mark.parametrize(
    ("wanted", "before", "now", "improved"),
    [
        ({"rose_by": 0.5}, 1.0, 1.5, True),
        ({"rose_by": 0.5}, 1.0, 1.4, False),
        ({"rose_by": 0.5}, -1.0, -0.5, True),
        ({"rose_by": 0.5}, math.nan, 9.0, False),
        ({"rose_by": 0.5}, 1.0, math.nan, False),
        ({"fell_by": 0.25}, 4.0, 3.0, True),
        ({"fell_by": 0.25}, 4.0, 3.1, False),
        ({"fell_by": 0.25}, -4.0, -5.0, True),
        ({"fell_by": 0.25}, 0.0, 0.0, False),
        ({"fell_by": 0.25}, 4.0, math.nan, False),
    ],
)
def test_how_far_a_metric_must_move(wanted: dict[str, float], before: float, now: float, improved: bool) -> None:
    moved = curve([1.0] * 3, m=[before, 7.0, now])
    assert has_improved(Improved(metric="m", **wanted), moved, 2) == improved


def test_the_slope_is_fitted_over_its_own_stretch() -> None:
    # Falls by 0.1 a report (10 per 1,000 steps), and stands still over the last 20 steps.
    losses = [1.0, 0.9, 0.8, 0.7, 0.6, 0.6, 0.6]
    flat = [1.0] * 7
    assert not plateau(StopRule(window=6), curve(flat, losses))
    assert plateau(StopRule(window=6, slope_steps=20), curve(flat, losses))
    assert not plateau(StopRule(window=6, slope_steps=40, slope=0.0), curve(flat, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]))
    # A stretch that is longer than the window looks back beyond it.
    assert plateau(StopRule(window=2), curve(flat, losses))
    assert not plateau(StopRule(window=2, slope_steps=60), curve(flat, losses))
    # Two points make no line.
    assert not plateau(StopRule(window=3, slope_steps=20), curve(flat, [1.0] * 5 + [math.nan, 1.0]))
    assert not plateau(StopRule(window=3, slope_steps=10), curve(flat, flat))


@given(
    st.lists(st.floats(-10, 10), min_size=3, max_size=40),
    st.floats(0, 1),
)
def test_flatness_is_that_of_a_least_squares_fit(losses: list[float], slope: float) -> None:
    points = [(100 * (i + 1), loss) for i, loss in enumerate(losses)]
    xs, ys = zip(*points, strict=True)
    fit = stats.linregress(xs, ys)
    quantile = stats.t.ppf(0.975, len(points) - 2)
    upper = fit.slope + quantile * (0.0 if math.isnan(fit.stderr) else fit.stderr)
    decline = -fit.slope * 1000
    if abs(upper) > 1e-6 and abs(decline - slope) > 1e-6:
        assert is_flat(points, slope) == (upper >= 0 or decline < slope)


def promote(**by: float) -> PromoteRule:
    return PromoteRule(margin=0.05, tolerance=0.01, healthier=(Healthier(metric="health", **by),))


PROMOTE = promote(factor=1.1)


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
        (promote(factor=0.9), 1.0, 0.8, "health"),
        (promote(factor=0.9), 1.0, 0.95, None),
        (promote(factor=0.9), 1.0, math.nan, None),
        (promote(margin=0.25), 1.0, 1.25, "health"),
        (promote(margin=0.25), 1.0, 1.2, None),
        (promote(margin=-0.25), 1.0, 0.75, "health"),
        (promote(margin=-0.25), 1.0, 0.8, None),
        (promote(margin=-0.25), 1.0, math.nan, None),
        (PromoteRule(margin=0.05), 1.0, 9.0, None),
        (PromoteRule(margin=0.0), 1.0, 9.0, "margin"),
    ],
)
def test_promotion_by_margin_and_by_health(rule: PromoteRule, score: float, health: float, reason: str | None) -> None:
    assert promotable_by_rule(rule, score, 1.0, {"health": health}, {"health": 1.0}) == reason


def test_one_way_of_being_healthier_suffices() -> None:
    wider = Healthier(metric="entropy", margin=0.03)
    rule = PromoteRule(tolerance=0.01, healthier=(wider, Healthier(metric="rate", factor=1.1)))
    control = {"entropy": 0.5, "rate": 100.0}
    for entropy, rate, healthier in (
        (0.5, 100.0, False),
        (0.54, 90.0, True),
        (0.4, 111.0, True),
        (math.nan, 120.0, True),
        (math.nan, math.nan, False),
    ):
        said = promotable_by_rule(rule, 1.0, 1.0, {"entropy": entropy, "rate": rate}, control)
        assert said == ("health" if healthier else None)
    assert promotable_by_rule(rule, 1.0, 1.0, {"rate": 111.0}, control) == "health"
    assert promotable_by_rule(rule, 1.0, 1.0, {}, control) is None


def test_a_control_without_health_promotes_nobody_by_health() -> None:
    assert promotable_by_rule(PROMOTE, 1.0, 1.0, {"health": 1.2}, {"health": math.nan}) is None
    assert promotable_by_rule(PROMOTE, 1.0, 1.0, {"health": 1.2}, {}) is None


# --- health ----------------------------------------------------------------------------------------------------------


def pulse(*values: float | None) -> Curve:
    """A report every 10 steps; None: one without the metric."""
    made = Curve()
    for i, value in enumerate(values):
        made.add(10 * (i + 1), 1.0, {} if value is None else {"pulse": value})
    return made


def sick(*curves: Curve, **bound: object) -> str | None:
    return out_of_bounds([HealthBound.model_validate({"metric": "pulse", "at_least": 0.6, **bound})], curves)


@pytest.mark.parametrize(
    ("values", "healthy"),
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
def test_bounds_on_the_last_report(values: dict[str, float], healthy: bool) -> None:
    bounds = (HealthBound(metric="a", at_least=0.2), HealthBound(metric="b", at_least=0.2, at_most=0.8))
    reported = Curve()
    reported.add(10, 1.0, {"a": 0.5, "b": 0.5})
    reported.add(20, 1.0, values)
    assert (out_of_bounds(bounds, [reported]) is None) == healthy
    assert out_of_bounds((), [reported]) is None


def test_out_of_bounds_says_what_for_how_long_and_what_is_allowed() -> None:
    assert sick(pulse(0.9, 0.5, 0.4, 0.412345), in_a_row=3) == "health: pulse = 0.4123 for 3 reports (at least 0.6)"
    assert sick(pulse(0.5)) == "health: pulse = 0.5 for 1 report (at least 0.6)"
    assert sick(pulse(None)) == "health: pulse = nan for 1 report (at least 0.6)"
    assert sick(pulse(9.0), at_most=7.0) == "health: pulse = 9 for 1 report (at least 0.6, at most 7)"


def test_in_a_row_asks_for_as_many_reports_on_end() -> None:
    assert sick(pulse(0.1, 0.1), in_a_row=3) is None
    assert sick(pulse(0.1, 0.1, 0.1), in_a_row=3)
    assert sick(pulse(0.1, 0.1, 0.7, 0.1), in_a_row=3) is None
    assert sick(pulse(0.1, 0.1, 0.1, 0.7), in_a_row=3) is None
    assert sick(pulse(0.7, 0.1, math.nan, 0.1), in_a_row=3)
    assert sick(pulse(), in_a_row=1) is None


def test_reports_up_to_a_step_do_not_count() -> None:
    early = pulse(0.1, 0.1, 0.1, 0.1)
    assert sick(early, in_a_row=3, after_step=10)
    assert sick(early, in_a_row=3, after_step=20) is None
    assert sick(early, after_step=39)
    assert sick(early, after_step=40) is None


def test_a_metric_that_need_not_be_there_is_not_judged_where_it_is_not() -> None:
    assert sick(pulse(None, None), required=False) is None
    assert sick(pulse(0.1, None), required=False)
    assert sick(pulse(math.nan), required=False)
    assert sick(pulse(0.1, None, 0.1), required=False, in_a_row=2)
    assert sick(pulse(0.1, None, 0.1), required=True, in_a_row=3)


def test_of_a_candidate_the_mean_over_its_members_counts_report_by_report() -> None:
    well, ill = pulse(0.9, 0.9), pulse(0.4, 0.2)
    assert sick(well, ill, in_a_row=1) == "health: pulse = 0.55 for 1 report (at least 0.6)"
    assert sick(well, ill, in_a_row=2) is None
    # One that stopped early counts with its last reports; one that reported nothing does not.
    assert sick(well, pulse(0.1), in_a_row=1) == "health: pulse = 0.5 for 1 report (at least 0.6)"
    assert sick(pulse(0.5, 0.5), pulse(), in_a_row=2) == "health: pulse = 0.5 for 2 reports (at least 0.6)"
    assert sick() is None


def test_a_member_that_is_out_of_bounds_stops_where_the_bound_says_so() -> None:
    bound = HealthBound(metric="pulse", at_least=0.6, in_a_row=2)
    stops = bound.model_copy(update={"stops": True})
    assert stop_reason(Rules(health=(bound,)), pulse(0.1, 0.1)) is None
    assert stop_reason(Rules(health=(bound, stops)), pulse(0.1, 0.1)) == (
        "health: pulse = 0.1 for 2 reports (at least 0.6)"
    )
    assert stop_reason(Rules(health=(stops,)), pulse(0.1, 0.7)) is None


# --- the gap to the control ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "now", "said"),
    [
        ([0.125], [0.125], None),
        ([0.25], [0.0], "gap: 0.25 behind the control at the first evaluation (at most 0.125)"),
        ([0.0, 0.25], [0.0, 0.25], None),
        ([0.0, 0.5], [0.0, 0.0], "gap: 0.25 behind the control at the first evaluation (at most 0.125)"),
        ([0.0], [0.0625], None),
        ([0.0], [0.125], "gap: from 0 to 0.125 behind the control (at most 0.0625 wider)"),
        ([-2.0], [-1.5], "gap: from -2 to -1.5 behind the control (at most 0.0625 wider)"),
        ([-2.0], [-3.0], None),
        ([math.nan, 0.0], [9.0, 0.0], None),
        ([9.0, 0.0], [math.inf, 0.0], None),
        ([math.nan], [9.0], None),
        ([], [], None),
    ],
)
def test_a_gap_may_be_so_wide_at_first_and_widen_so_far(first: list[float], now: list[float], said: str | None) -> None:
    assert too_far_behind(GapRule(first=0.125, widening=0.0625), first, now) == said


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_nobodys_best(odd: float) -> None:
    made = Curve()
    for step, value in ((10, 2.0), (20, odd), (30, 1.5)):
        made.add(step, value, {})
    assert (made.best, made.best_step) == (1.5, 30)
    assert made.best_before(1) == 2.0


def test_a_bound_is_broken_once_an_episode() -> None:
    bound = HealthBound(metric="pulse", at_least=0.5, in_a_row=2, id="H20")
    ill = pulse(0.1, 0.1, 0.1, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1, 0.9, 0.9, 0.9, 0.1, 0.1)
    found = alarms(Rules(health=(bound,)), ill)
    assert [(alarm.rule, ill.steps.index(alarm.step)) for alarm in found] == [("H20", 1), ("H20", 16)]
    assert found[0].message == "pulse = 0.1 for 2 reports (at least 0.5)"
    named = HealthBound(metric="pulse", at_least=0.5)
    assert {alarm.rule for alarm in alarms(Rules(health=(named,)), ill)} == {"bound"}
    assert alarms(Rules(health=(bound,)), pulse(0.9, 0.1, 0.9)) == []
