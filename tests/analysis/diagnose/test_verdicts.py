"""From an estimate to a verdict."""

from __future__ import annotations

import math

import pytest

from analysis.diagnose.verdicts import shown, verdict
from analysis.stats.interval import Interval


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Interval(0.3, 0.2, 0.4), "pass"),
        (Interval(0.3, 0.2, 0.6), "warn"),
        (Interval(0.7, 0.4, 0.8), "warn"),
        (Interval(0.7, 0.6, 0.8), "fail"),
        (Interval(0.5, 0.5, 0.5), "fail"),
        (Interval(0.3, math.nan, math.nan), "pass"),
        (Interval(0.7, math.nan, math.nan), "fail"),
        (Interval(math.nan, 0.1, 0.2), "no_evidence"),
        (Interval(math.inf, 0.1, math.inf), "no_evidence"),
    ],
)
def test_the_value_decides_and_the_interval_doubts(estimate: Interval, expected: str) -> None:
    assert verdict(estimate, lambda value: value < 0.5) == expected


def test_an_interval_that_is_not_known_is_not_shown_nor_a_negative_zero() -> None:
    assert shown(Interval(-1e-9, -0.001, 1e-5)) == "0.000 (-0.001 to 0.000)"
    assert shown(Interval(0.25, 0.125, 0.5), 2) == "0.25 (0.12 to 0.50)"
    assert shown(Interval(0.25, math.nan, math.nan)) == "0.250"
