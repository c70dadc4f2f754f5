"""Fits along a series: least squares by hand, what they look back on, and what they cannot know."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.spacing_mdn.baselines import adaptive_nll
from trainables.arrays import Array
from trainables.spacing_mdn.features.online_ar import LAGS, fit_online

ORDER, WINDOW, REFIT = 3, 60, 5


def series(num: int = 400, seed: int = 0) -> Array:
    noise = np.random.default_rng(seed).normal(0.0, 0.3, num + 1)
    spacings: Array = 1.0 + noise[1:] - 0.6 * noise[:-1]
    return spacings


def by_hand(spacings: Array, fit_at: int) -> tuple[Array, Array, float]:
    """Coefficients (intercept, latest first), X'X and s^2 of a fit on the spacings up to ``fit_at``."""
    part = spacings[fit_at - (WINDOW - REFIT) : fit_at + 1]
    rows = np.array([[1.0, *part[t - ORDER : t][::-1]] for t in range(ORDER, len(part))])
    coef, squares, _, _ = np.linalg.lstsq(rows, part[ORDER:], rcond=None)
    return coef, rows.T @ rows, float(squares[0]) / (len(rows) - ORDER - 1)


@pytest.mark.parametrize("anchor", [0, 2])
def test_every_row_is_least_squares_on_its_window(anchor: int) -> None:
    spacings = series()
    fit = fit_online(spacings, ORDER, WINDOW, REFIT, anchor=anchor)
    assert fit.first % REFIT == anchor
    assert WINDOW - 1 <= fit.first < WINDOW - 1 + REFIT
    assert len(fit.prediction) == len(spacings) - fit.first
    for position in (fit.first, fit.first + 3, 200, len(spacings) - 1):
        row = position - fit.first
        coef, gram, variance = by_hand(spacings, fit.first + row // REFIT * REFIT)
        new = np.array([1.0, *spacings[position - ORDER + 1 : position + 1][::-1]])
        assert fit.prediction[row] == pytest.approx(new @ coef, abs=1e-7)
        sigma = math.sqrt(variance * (1.0 + new @ np.linalg.solve(gram, new)))
        assert fit.sigma[row] == pytest.approx(sigma, rel=1e-6)
        for lag in (0, 1, LAGS - 1):
            at = position - lag
            told = np.array([1.0, *spacings[at - ORDER : at][::-1]]) @ coef
            assert fit.residuals[row, lag] == pytest.approx(spacings[at] - told, abs=1e-7)


def test_a_fit_for_each_spacing_is_the_adaptive_baseline() -> None:
    spacings = series()
    fit = fit_online(spacings, ORDER, WINDOW, 1)
    z = (spacings[WINDOW:] - fit.prediction[:-1]) / fit.sigma[:-1]
    nll = np.mean(0.5 * z**2 + np.log(fit.sigma[:-1]) + 0.5 * math.log(2.0 * math.pi))
    assert fit.first == WINDOW - 1
    assert nll == pytest.approx(adaptive_nll(spacings, np.arange(WINDOW, len(spacings)), ORDER, WINDOW)[0], abs=1e-7)


def test_a_window_that_is_not_looked_at_does_not_matter() -> None:
    spacings, position = series(), 201
    other = spacings.copy()
    other[: position - WINDOW + 1] += 5.0
    one, two = (fit_online(part, ORDER, WINDOW, REFIT) for part in (spacings, other))
    row = position - one.first
    assert two.prediction[row] == pytest.approx(one.prediction[row], abs=1e-9)
    assert two.residuals[row] == pytest.approx(one.residuals[row], abs=1e-9)


@pytest.mark.parametrize(
    ("order", "window", "says"), [(3, 22, "over 22"), (30, 64, "over 65"), (3, 500, "400 spacings")]
)
def test_a_window_that_is_too_short_or_too_long_is_refused(order: int, window: int, says: str) -> None:
    with pytest.raises(ValueError, match=f"window = {window}: .*{says}"):
        fit_online(series(), order, window, REFIT)
