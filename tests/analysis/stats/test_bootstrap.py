"""Intervals cover what they should, on series whose mean and spread are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter

from analysis.stats.bootstrap import interval, mean_interval
from analysis.stats.interval import Interval

REPEATS = 400


def covered(series: np.ndarray, truth: float, **options: int) -> float:
    """Share of the rows whose interval holds ``truth``."""
    estimates = [mean_interval(row, num=300, **options) for row in series]
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_covers_the_mean_of_independent_values(draw: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(2.0, 1.0, (REPEATS, 256)) if draw == "normal" else rng.exponential(2.0, (REPEATS, 256))
    # Two standard errors of a share near 0.94 over 400 series are 0.024.
    assert 0.91 <= covered(values, 2.0) <= 0.975


def test_blocks_cover_the_mean_of_dependent_values_and_single_draws_do_not() -> None:
    noise = np.random.default_rng(1).normal(size=(REPEATS, 1024))
    series = lfilter([1.0], [1.0, -0.7], noise, axis=1)
    assert covered(series, 0.0, block=32) >= 0.89
    assert covered(series, 0.0, block=1) <= 0.7


def test_width_is_that_of_the_mean() -> None:
    values = np.random.default_rng(2).normal(size=4096)
    found = mean_interval(values, num=4000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 64, rel=0.1)
    assert found.value == pytest.approx(values.mean())


def test_a_series_that_alternates_within_blocks_has_no_spread() -> None:
    """Each block of 2 holds one of either sign: every resample has mean 0."""
    found = mean_interval(np.tile([1.0, -1.0], 50), block=2)
    assert found.value == found.low == found.high == 0.0
    assert mean_interval(np.tile([1.0, -1.0], 50), block=1).high > 0.1


def test_any_statistic_agrees_with_the_mean_and_covers_a_deviation() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(96, 2))
    mean = interval(lambda v: float(v[:, 1].mean()), values, num=2000)
    plain = mean_interval(values[:, 1], num=2000)
    assert mean.value == pytest.approx(plain.value)
    assert mean.high - mean.low == pytest.approx(plain.high - plain.low, rel=0.1)
    series = rng.normal(0.0, 3.0, (100, 256))
    found = [interval(lambda v: float(v.std()), row, num=200) for row in series]
    assert np.mean([e.low <= 3.0 <= e.high for e in found]) >= 0.85


def test_seeded() -> None:
    values = np.random.default_rng(4).normal(size=50)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)
    assert interval(np.median, values, seed=1) == interval(np.median, values, seed=1)


def test_a_wider_level_is_wider() -> None:
    values = np.random.default_rng(5).normal(size=64)
    narrow, wide = mean_interval(values, level=0.5), mean_interval(values, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def same(found: Interval, value: float) -> bool:
    return np.array_equal([found.value, found.low, found.high], [value, math.nan, math.nan], equal_nan=True)


def test_what_cannot_be_resampled_has_no_bounds() -> None:
    for bad in (math.nan, math.inf):
        assert same(mean_interval(np.array([1.0, bad, 2.0])), bad)
        assert same(interval(lambda v: float(v.sum()), np.array([1.0, bad, 2.0])), bad)
    assert same(mean_interval(np.array([1.5])), 1.5)
    assert same(mean_interval(np.array([])), math.nan)
    assert same(interval(lambda v: float(v[0]), np.array([])), math.nan)
    # A statistic that some resamples cannot answer: only the first window is above 0.
    assert same(interval(lambda v: 1.0 if v.max() > 0 else math.nan, np.array([1.0, 0.0, 0.0, 0.0]), block=1), 1.0)


@pytest.mark.parametrize("options", [{"block": 0}, {"num": 0}, {"level": 1.0}])
def test_refuses_what_makes_no_interval(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        mean_interval(np.zeros(4), **options)
    with pytest.raises(ValueError, match="allowed"):
        interval(np.mean, np.zeros(4), **options)
    with pytest.raises(ValueError, match=r"\(n,\)"):
        mean_interval(np.zeros((2, 2)))
