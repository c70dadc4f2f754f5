"""Lines of the primes: the fit against a slow one, its invariance, and the explicit formula on real zeros."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainables.arrays import Array
from trainables.spacing_mdn.features import field
from trainables.spacing_mdn.features.heights import Heights, heights_of
from trainables.spacing_mdn.features.prime_lines import LAGS, Lines, Run, exact, fitted, lines_up_to

WINDOW, NOISE, REFIT = 120, 0.02, 8


@pytest.fixture(scope="module")
def zeros() -> Heights:
    """Zeros of a made-up zeta: S is two of its lines and a little noise."""
    rng = np.random.default_rng(1)
    times = 1000.0 + np.cumsum(rng.uniform(0.5, 1.5, 500))
    lines = lines_up_to(3)
    counts = lines.amplitude @ np.sin(np.outer(lines.omega, times) + 0.7) + 0.05 * rng.normal(size=len(times))
    return Heights(times, counts, np.log(times / (2.0 * math.pi)))


def rows_of(runs: list[Run]) -> tuple[int, Array, Array]:
    """The first position; residuals (rows, LAGS), latest first; the next residual (rows,)."""
    lags = [np.lib.stride_tricks.sliding_window_view(run.residuals, LAGS, axis=1)[..., ::-1] for run in runs]
    following = np.concatenate([run.next_residual.reshape(-1) for run in runs])
    return runs[0].first, np.concatenate([part.reshape(-1, LAGS) for part in lags]), following


def test_lines_are_the_powers_of_primes() -> None:
    lines = lines_up_to(10)
    assert [(p, k) for p, k in zip(lines.prime, lines.power, strict=True)] == [
        (2, 1), (3, 1), (5, 1), (7, 1), (2, 2), (3, 2), (2, 3),
    ]  # fmt: skip
    assert lines.omega[4] == pytest.approx(2 * math.log(2))
    assert lines.amplitude[4] == pytest.approx(1 / (math.pi * 2 * 2))
    assert len(lines_up_to(2).omega) == 1
    with pytest.raises(ValueError, match="prime_lines = 1: allowed is at least 2"):
        lines_up_to(1)


def test_every_fit_is_the_ridge_on_its_window(zeros: Heights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.spacing_mdn.features.prime_lines._FLOATS", 400)  # several batches
    lines = lines_up_to(5)
    first, residuals, following = rows_of(list(fitted(zeros.times, zeros.counts, lines, WINDOW, NOISE, REFIT)))
    assert WINDOW - 1 <= first < WINDOW - 1 + REFIT
    for position in (first, first + 5, 300):
        fit_at = first + (position - first) // REFIT * REFIT
        number = WINDOW - REFIT + 2
        at = slice(fit_at + 2 - number, fit_at + 2)
        design = design_of(zeros.times, lines)
        prior = np.diag(NOISE * np.concatenate([2 / lines.amplitude**2, 2 / lines.amplitude**2, [0.0]]))
        coef = np.linalg.solve(design[at].T @ design[at] + prior, design[at].T @ zeros.counts[at])
        left = zeros.counts - design @ coef
        assert residuals[position - first] == pytest.approx(left[position + 1 : position + 1 - LAGS : -1], abs=1e-9)
        assert following[position - first] == pytest.approx(left[position + 2], abs=1e-9)


def design_of(times: Array, lines: Lines) -> Array:
    phase = np.outer(times, lines.omega)
    return np.concatenate([np.cos(phase), np.sin(phase), np.ones((len(times), 1))], axis=1)


def test_a_shift_of_all_ordinates_changes_nothing(zeros: Heights) -> None:
    lines = lines_up_to(30)
    here, there = (
        field.ahead(fitted(times, zeros.counts, lines, WINDOW, NOISE, REFIT), lines, times, zeros.log_height)
        for times in (zeros.times, zeros.times + 12_345.678)
    )
    assert np.abs(here.residuals - there.residuals).max() < 1e-9
    assert np.abs(here.zeta - there.zeta).max() < 1e-6


def test_the_field_is_what_the_next_zero_solves(zeros: Heights) -> None:
    """zeta is s + S_P(ahead) - S_P(here), cell by cell from the fitted coefficients."""
    lines = lines_up_to(5)
    runs = list(fitted(zeros.times, zeros.counts, lines, WINDOW, NOISE, REFIT))
    ahead = field.ahead(runs, lines, zeros.times, zeros.log_height)
    position = ahead.first + 3  # under the first fit
    now = zeros.times[position + 1]
    height = zeros.log_height[ahead.first + 1]
    grid = np.arange(field.CELLS + 1) / field.PER_SPACING
    times = now + 2 * math.pi * grid / height
    told = (
        np.cos(np.outer(times, lines.omega)) @ runs[0].cosine[0]
        + np.sin(np.outer(times, lines.omega)) @ runs[0].sine[0]
    )
    assert ahead.zeta[3] == pytest.approx(grid + told - told[0], abs=1e-5)
    assert ahead.target[3] == pytest.approx(1.0 + ahead.residuals[3, 0] - ahead.residuals[4, 0], abs=1e-9)


def test_a_field_that_rises_is_inverted_and_one_that_falls_is_held() -> None:
    grid = np.arange(field.CELLS + 1) / field.PER_SPACING
    regression = np.zeros(1 + LAGS)
    regression[0] = 1.1
    rising, falling = 0.5 * grid, grid - 3.0 * np.clip(grid - 0.5, 0.0, 0.5)
    table = field.Ahead(0, np.zeros((2, LAGS)), np.stack([rising, falling]).astype(np.float32), np.ones(2))
    s, zhat, slope = field.spacing_ahead(table, regression)
    assert zhat.tolist() == [1.1, 1.1]
    # The second rises by 1 to .5, then by .05 for half a spacing, then by 1 again.
    assert s == pytest.approx([2.2, 0.5 + 0.5 + (1.1 - 0.5 - 0.025)], abs=1e-6)
    assert slope[1].min() == pytest.approx(math.log(0.05))


def test_exact_phases_of_the_real_zeros(zeros_100k: Array) -> None:
    """S has the known spread; the first line takes from its variance what its sine has, and more lines take nearly all.

    Zeros fall where their sum lets them, so that the variances of many lines do not add up.
    """
    ordinates = zeros_100k[:20_000]
    spacings = np.diff(ordinates / (2 * math.pi) * (np.log(ordinates / (2 * math.pi)) - 1))
    starts = np.log(ordinates[:-1:256] / (2 * math.pi))
    at = heights_of(spacings, starts, 256, exact=True)
    assert at.times == pytest.approx(ordinates, abs=1e-8)
    assert at.counts[1000:].mean() == pytest.approx(0.0, abs=1e-3)
    assert at.counts.std() == pytest.approx(0.30, abs=0.01)
    left = []
    for bound in (2, 10, 100, 1000):
        _, residuals, _ = rows_of(list(exact(at.times, at.counts, lines_up_to(bound), 16)))
        left.append(float(residuals[:, 0].var()))
    assert left[0] == pytest.approx(at.counts.var() - lines_up_to(2).amplitude[0] ** 2 / 2, abs=0.002)
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.1 * at.counts.var()
