"""Least-squares autoregressions against processes whose coefficients are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import lfilter

from trainables.spacing_mdn.features.linear import fit_ar, gaussian_nll

NUM = 200_000


def ar_series(coef: list[float], mean: float = 1.0, sigma: float = 0.3, num: int = NUM) -> np.ndarray:
    noise = np.random.default_rng(7).normal(0.0, sigma, num)
    return mean + lfilter([1.0], [1.0, *[-value for value in coef]], noise)


def test_recovers_coefficients_intercept_and_sigma():
    coef = [-0.35, -0.12, 0.05]
    model = fit_ar(ar_series(coef), 3)
    error = 5.0 / math.sqrt(NUM)
    np.testing.assert_allclose(model.coef[0], coef, atol=error)
    assert model.intercept[0] == pytest.approx(1.0 - sum(coef), abs=4 * error)
    assert model.sigma == pytest.approx(0.3, abs=0.3 * error)
    assert model.degree == 0


def test_sigma_is_the_rms_of_the_residuals_of_the_fit():
    series = ar_series([-0.5, 0.2], num=3_000)
    model = fit_ar(series, 5)
    residuals = model.residuals(series)
    assert residuals.shape == (2_995,)
    assert model.sigma == pytest.approx(math.sqrt(float(np.mean(residuals**2))), rel=1e-9)
    assert abs(residuals.mean()) < 1e-12
    assert model.nll(series) == pytest.approx(0.5 + math.log(model.sigma * math.sqrt(2 * math.pi)), rel=1e-9)


def test_runs_of_rows_do_not_show(monkeypatch):
    series = ar_series([-0.5, 0.2], num=3_000)
    whole = fit_ar(series, 4)
    monkeypatch.setattr("trainables.spacing_mdn.features.linear._ROWS", 101)
    np.testing.assert_allclose(fit_ar(series, 4).coef, whole.coef, rtol=1e-10, atol=1e-13)


def test_agrees_with_the_textbook_normal_equations():
    series = ar_series([-0.3], num=500)
    design = np.column_stack([np.ones(498), series[1:-1], series[:-2]])
    expected = np.linalg.lstsq(design, series[2:], rcond=None)[0]
    model = fit_ar(series, 2)
    np.testing.assert_allclose([model.intercept[0], *model.coef[0]], expected, rtol=1e-9)


def test_prediction_is_the_linear_form_and_keeps_leading_axes():
    series = ar_series([-0.4, 0.1], num=640)
    model = fit_ar(series, 2)
    by_hand = model.intercept[0] + model.coef[0, 0] * series[1:-1] + model.coef[0, 1] * series[:-2]
    np.testing.assert_allclose(model.predict(series), by_hand, rtol=1e-13)
    windows = series.reshape(10, 64)
    np.testing.assert_array_equal(model.predict(windows)[3], model.predict(windows[3]))


def test_quadratic_coefficients_follow_the_height():
    height = np.linspace(8.0, 12.0, NUM)
    first = -0.2 - 0.05 * (height - 10.0) + 0.04 * (height - 10.0) ** 2
    noise = np.random.default_rng(3).normal(0.0, 0.3, NUM)
    series = np.empty(NUM)
    series[0] = 1.0
    for t in range(1, NUM):
        series[t] = 1.0 + first[t] * (series[t - 1] - 1.0) + noise[t]
    model = fit_ar(series, 1, height, degree=2)
    z = (height - model.height_center) / model.height_scale
    fitted = sum(model.coef[power, 0] * z**power for power in range(3))
    np.testing.assert_allclose(fitted, first, atol=0.03)
    assert model.sigma == pytest.approx(0.3, rel=0.01)
    assert model.nll(series, height) < fit_ar(series, 1).nll(series)


def test_nan_stays_where_it_is_used():
    model = fit_ar(ar_series([-0.4, 0.1], num=640), 2)
    series = np.ones(10)
    series[4] = np.nan
    assert np.isnan(model.predict(series)).nonzero()[0].tolist() == [3, 4]


def test_gaussian_nll_is_the_closed_form():
    assert gaussian_nll(np.array([0.0]), 1.0) == pytest.approx(0.9189385332046727)
    assert gaussian_nll(np.array([2.0, -2.0]), 2.0) == pytest.approx(0.9189385332046727 + math.log(2.0) + 0.5)


@pytest.mark.parametrize(
    ("spacings", "order", "height", "degree", "says"),
    [
        (np.ones((4, 50)), 2, None, 0, r"shape \(4, 50\)"),
        (np.ones(50), 0, None, 0, "order=0"),
        (np.ones(50), 25, None, 0, "25 equations for 26 unknowns"),
        (np.ones(500), 2, None, 2, "got none"),
        (np.ones(500), 2, np.ones(499), 2, r"got shape \(499,\)"),
        (np.full(500, np.nan), 2, None, 0, "not finite"),
    ],
)
def test_fit_refuses(spacings, order, height, degree, says):
    with pytest.raises(ValueError, match=says):
        fit_ar(spacings, order, height, degree)


def test_predict_refuses_short_series_and_missing_height():
    height = np.linspace(8.0, 9.0, 640)
    model = fit_ar(ar_series([-0.4, 0.1], num=640), 2, height, degree=1)
    with pytest.raises(ValueError, match="order=2"):
        model.predict(np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="need log_height"):
        model.predict(np.ones(20))
