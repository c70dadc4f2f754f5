"""The bulk solver against flint's certified zeros, and its parts against their definitions."""

from __future__ import annotations

import math

import flint
import numpy as np
import pytest

from trainables.spacing_mdn.data import riemann_siegel


def certified(first: int, count: int) -> np.ndarray:
    with flint.ctx.workprec(96):
        return np.array([float(zero.imag) for zero in flint.acb.zeta_zeros(first, count)])


@pytest.mark.parametrize(
    ("first", "bound"), [(1001, 2e-11), (2990, 5e-12), (100_000, 3e-11), (1_115_570, 3e-10), (2_001_040, 3e-10)]
)
def test_zeros_agree_with_flint(first, bound):
    """Bounds are the error of the formula at the lowest zeros and one ulp of the ordinate at the highest."""
    solved = riemann_siegel.solve(first, 12)
    assert np.abs(solved - certified(first, 12)).max() < bound


def test_a_range_does_not_depend_on_where_it_starts():
    whole = riemann_siegel.solve(5_000, 400)
    np.testing.assert_allclose(riemann_siegel.solve(5_123, 57), whole[123:180], rtol=0, atol=2e-12)


def test_close_pair_is_found():
    """The closest pair of the first two million, 0.005 of the mean spacing apart."""
    pair = riemann_siegel.solve(1_115_578, 2)
    assert 0.0 < pair[1] - pair[0] < 0.004


def test_z_is_that_of_the_definition():
    """Z(t) = exp(i theta(t)) zeta(1/2 + it), also where the number of terms changes (t = 2 pi 20^2)."""
    change = 2.0 * math.pi * 400
    heights = np.array([1400.25, 2000.0, change - 1e-6, change, change + 1e-6, 2600.125])
    z = riemann_siegel.ZSeries(1400.0, 2601.0)(heights)
    with flint.ctx.workprec(128):
        exact = []
        for height in heights.tolist():
            point = flint.acb(0.25, flint.arb(height) / 2)
            phase = point.lgamma().imag - flint.arb(height) / 2 * flint.arb.pi().log()
            exact.append(float(((flint.acb(0, 1) * phase).exp() * flint.acb(0.5, height).zeta()).real))
    np.testing.assert_allclose(z, exact, rtol=0, atol=1e-10)


def test_base_and_offset_add_up():
    z = riemann_siegel.ZSeries(1400.0, 1500.0)
    base, offset = np.array([1403.9, 1404.1, 1450.0]), np.array([0.3, 0.0, 0.125])
    np.testing.assert_allclose(z(base, offset), z(base + offset), rtol=0, atol=1e-10)


def test_gram_points_solve_theta():
    numbers = np.array([20, 100, 126, 999_999, 2_000_000])
    points = riemann_siegel.gram_points(numbers)
    np.testing.assert_allclose(riemann_siegel.theta(points) / math.pi, numbers, rtol=1e-14)


def test_theta_is_the_phase_of_gamma():
    for height in (100.0, 1419.4, 74920.8):
        with flint.ctx.workprec(128):
            phase = flint.acb(0.25, flint.arb(height) / 2).lgamma().imag
            exact = float(phase - flint.arb(height) / 2 * flint.arb.pi().log())
        assert riemann_siegel.theta(np.array([height]))[0] == pytest.approx(exact, rel=1e-15, abs=2e-12)


def test_first_correction_is_psi():
    series = riemann_siegel._correction_series()[0]
    for p in (0.0, 0.1, 0.4, 0.6, 1.0):
        psi = math.cos(2 * math.pi * (p * p - p - 1 / 16)) / math.cos(2 * math.pi * p)
        assert np.polynomial.polynomial.polyval(p - 0.5, series) == pytest.approx(psi, abs=1e-13)


@pytest.mark.parametrize(
    ("first", "count", "says"), [(1000, 5, "1001"), (2000, 0, "at least 1"), (3_000_000, 5, "above")]
)
def test_refuses_a_range_it_cannot_serve(first, count, says):
    with pytest.raises(ValueError, match=says):
        riemann_siegel.solve(first, count)


def test_flint_precision_is_left_as_it_was():
    before = flint.ctx.prec, flint.ctx.cap
    riemann_siegel._correction_series.cache_clear()
    riemann_siegel.solve(1200, 3)
    assert (flint.ctx.prec, flint.ctx.cap) == before
