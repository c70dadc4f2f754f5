"""Schedules: their ends, their knees, and that only the step and the pinned length enter."""

from __future__ import annotations

import itertools

import pytest

from trainables.training.schedules import SCHEDULE_KINDS, ScheduleKind, lr_factor, ramp


@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
def test_warm_up_is_linear_and_ends_at_the_peak(kind: ScheduleKind) -> None:
    factors = [lr_factor(step, kind=kind, schedule_steps=100, warmup=10) for step in range(11)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == pytest.approx(1.0)


@pytest.mark.parametrize(("kind", "middle", "end"), [("cosine", 0.55, 0.1), ("wsd", 1.0, 0.1), ("constant", 1.0, 1.0)])
def test_middle_and_end(kind: ScheduleKind, middle: float, end: float) -> None:
    assert lr_factor(50, kind=kind, schedule_steps=100, warmup=0) == pytest.approx(middle)
    for beyond in (100, 101, 10_000):
        assert lr_factor(beyond, kind=kind, schedule_steps=100, warmup=0) == pytest.approx(end)


def test_the_decay_of_wsd_is_a_straight_line_over_the_last_fifth() -> None:
    factors = [lr_factor(step, kind="wsd", schedule_steps=100, warmup=5, final=0.2) for step in (79, 80, 90, 100)]
    assert factors == pytest.approx([1.0, 1.0, 0.6, 0.2])


@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
def test_never_rises_after_the_warm_up(kind: ScheduleKind) -> None:
    factors = [lr_factor(step, kind=kind, schedule_steps=60, warmup=7) for step in range(7, 80)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors))


@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
def test_a_warm_up_as_long_as_the_schedule(kind: ScheduleKind) -> None:
    assert lr_factor(9, kind=kind, schedule_steps=10, warmup=10) == 1.0
    assert lr_factor(10, kind=kind, schedule_steps=10, warmup=10) == pytest.approx(1.0 if kind == "constant" else 0.1)


def test_an_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="schedule = 'linear': allowed are cosine, wsd, constant"):
        lr_factor(1, kind="linear", schedule_steps=2, warmup=0)  # type: ignore[arg-type]


def test_ramp_through_its_knots() -> None:
    knots = ((0, 0.0), (500, 1e-3), (3000, 1e-2))
    values = [ramp(step, knots) for step in (0, 250, 500, 1750, 3000, 99_999)]
    assert values == pytest.approx([0.0, 5e-4, 1e-3, 5.5e-3, 1e-2, 1e-2])
    assert ramp(3, ((5, 0.5), (6, 1.0))) == 0.5


def test_ramp_of_no_length_is_a_jump() -> None:
    assert [ramp(step, ((0, 0.0), (0, 2.0))) for step in (0, 1)] == [2.0, 2.0]
    assert [ramp(step, ((0, 0.0), (4, 1.0), (4, 2.0))) for step in (2, 4)] == [0.5, 2.0]
