"""From an estimate to a verdict."""

from __future__ import annotations

import math

import pytest

from analysis.diagnose.api import Estimate
from analysis.diagnose.verdicts import shown, verdict


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Estimate(0.3, 0.2, 0.4), "pass"),
        (Estimate(0.3, 0.2, 0.6), "warn"),
        (Estimate(0.7, 0.4, 0.8), "warn"),
        (Estimate(0.7, 0.6, 0.8), "fail"),
        (Estimate(0.5, 0.5, 0.5), "fail"),
        (Estimate(0.3, math.nan, math.nan), "pass"),
        (Estimate(0.7, math.nan, math.nan), "fail"),
        (Estimate(math.nan, 0.1, 0.2), "no_evidence"),
        (Estimate(math.inf, 0.1, math.inf), "no_evidence"),
    ],
)
def test_the_value_decides_and_the_interval_doubts(estimate: Estimate, expected: str) -> None:
    assert verdict(estimate, lambda value: value < 0.5) == expected


def test_an_interval_that_is_not_known_is_not_shown_nor_a_negative_zero() -> None:
    assert shown(Estimate(-1e-9, -0.001, 1e-5)) == "0.000 (-0.001 to 0.000)"
    assert shown(Estimate(0.25, 0.125, 0.5), 2) == "0.25 (0.12 to 0.50)"
    assert shown(Estimate(0.25, math.nan, math.nan)) == "0.250"
