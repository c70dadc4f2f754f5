"""Log heights from spacings alone: the evidence against its definition, real zeros found, nothing else looked at."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from trainables.arrays import Array
from trainables.spacing_mdn.config import SpacingConfig
from trainables.spacing_mdn.data import gue
from trainables.spacing_mdn.data.zeros import unfolded_spacings
from trainables.spacing_mdn.features import field, table
from trainables.spacing_mdn.features.heights import block_log_heights, heights_of
from trainables.spacing_mdn.features.inferred import fitted_anywhere, infer_log_height, log_evidence
from trainables.spacing_mdn.features.prime_lines import fitted, lines_up_to

NOISE = 0.02
WINDOW, REFIT, EVERY = 300, 8, 32


def stretch(zeros: Array, last: int, number: int) -> tuple[Array, Array]:
    """The ordinates and the spacings of ``number`` spacings up to zero ``last``."""
    ordinates = zeros[last - number : last + 1]
    return ordinates, unfolded_spacings(ordinates)


def test_the_evidence_is_the_marginal_likelihood(zeros_100k: Array) -> None:
    """Against the density of all differences of S that leave its level open."""
    lines = lines_up_to(5)
    ordinates, spacings = stretch(zeros_100k, 30_000, 40)
    heights = math.log(ordinates[-1] / (2 * math.pi)) + np.array([0.0, 0.05, -0.4])
    counts = np.arange(41) - np.append(0.0, np.cumsum(spacings))
    contrasts = np.linalg.qr(np.column_stack([np.ones(41), np.eye(41)[:, :40]]))[0][:, 1:]
    by_hand = []
    for height in heights:
        start = block_log_heights(spacings, height, 40)
        phase = np.outer(heights_of(spacings, start, 40, exact=False).times, lines.omega)
        design = np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
        covariance = design @ np.diag(np.tile(lines.amplitude**2 / 2, 2)) @ design.T + NOISE * np.eye(41)
        by_hand.append(multivariate_normal.logpdf(contrasts.T @ counts, cov=contrasts.T @ covariance @ contrasts))
    found = log_evidence(spacings, heights, lines, NOISE)
    assert found - found[0] == pytest.approx(np.array(by_hand) - by_hand[0], abs=1e-6)


@pytest.mark.parametrize("number", [128, 511, 1100])
def test_spacings_alone_tell_the_log_height(number: int, zeros_100k: Array) -> None:
    errors = []
    for last in np.linspace(2000, 99_000, 12).astype(int):
        ordinates, spacings = stretch(zeros_100k, last, number)
        errors.append(infer_log_height(spacings, NOISE) - math.log(ordinates[-1] / (2 * math.pi)))
    assert np.abs(errors).max() < {128: 0.04, 511: 0.003, 1100: 0.001}[number]


def test_spacings_alone_tell_the_ordinate(zeros_100k: Array) -> None:
    """With the height inferred, the phases of the explicit formula fit S at one place only: there is no floor."""
    lines = lines_up_to(100)
    for last in np.linspace(2000, 99_000, 12).astype(int):
        ordinates, spacings = stretch(zeros_100k, last, 511)
        height = infer_log_height(spacings, NOISE)
        places = 2 * math.pi * np.exp(height + np.linspace(-0.004, 0.004, 20_001))
        counts = np.arange(512) - np.append(0.0, np.cumsum(spacings))
        counts -= counts.mean()

        def misfit(place: float, spacings: Array = spacings, counts: Array = counts) -> float:
            start = block_log_heights(spacings, math.log(place / (2 * math.pi)), 511)
            told = -np.sin(np.outer(heights_of(spacings, start, 511, exact=True).times, lines.omega)) @ lines.amplitude
            return float(np.square(counts - told + told.mean()).sum())

        # The times from the last zero on hardly depend on the place: a sum over zeros for each line, once.
        behind = ordinates_at(spacings, height) - 2 * math.pi * math.exp(height)
        waves = np.exp(1j * np.outer(lines.omega, behind)) @ counts
        match = -(np.exp(1j * np.outer(places, lines.omega)) @ (lines.amplitude * waves)).imag
        likely = places[np.argsort(match)[-40:]]
        found = min(likely, key=misfit)
        found = min(found + np.linspace(-0.1, 0.1, 41), key=misfit)
        assert found == pytest.approx(ordinates[-1], abs=0.05)


def ordinates_at(spacings: Array, height: float) -> Array:
    start = block_log_heights(spacings, height, len(spacings))
    return heights_of(spacings, start, len(spacings), exact=True).times


def test_it_is_class_2_under_the_inferred_height(zeros_100k: Array) -> None:
    """A stretch that shares a height has the rows that fits along its window have at that height."""
    lines, anchor = lines_up_to(10), 5
    _, spacings = stretch(zeros_100k, 40_000, 420)
    runs, along = fitted_anywhere(spacings, lines, WINDOW, NOISE, REFIT, EVERY, anchor=anchor)
    got = field.ahead(runs, lines, along.times, along.log_height)
    assert got.first % EVERY == anchor
    assert len(got.residuals) == len(spacings) - got.first
    for at in range(got.first, len(spacings), EVERY):
        height = infer_log_height(spacings[at + EVERY - WINDOW : at + 1], NOISE)
        part = spacings[: at + EVERY]
        start = block_log_heights(spacings[: at + 1], height, at + 1)
        given = heights_of(part, start, len(part), exact=False)
        alike = fitted(given.times, given.counts, lines, WINDOW, NOISE, REFIT, anchor=anchor)
        want = field.ahead(alike, lines, given.times, given.log_height)
        # But the last target, of which the shorter series has no zero.
        mine, its = slice(at - got.first, len(part) - 1 - got.first), slice(at - want.first, -1)
        assert got.residuals[mine] == pytest.approx(want.residuals[its], abs=1e-6)
        assert got.zeta[mine] == pytest.approx(want.zeta[its], abs=1e-5)
        assert got.target[mine] == pytest.approx(want.target[its], abs=1e-6)


def test_only_the_window_is_looked_at(zeros_100k: Array) -> None:
    lines = lines_up_to(10)
    _, spacings = stretch(zeros_100k, 40_000, 600)
    one, _ = fitted_anywhere(spacings, lines, WINDOW, NOISE, REFIT, EVERY)
    position = one[4].first + EVERY - 1  # the last that shares a height: its past is the longest
    other = spacings.copy()
    other[: position - WINDOW + 1] = other[: position - WINDOW + 1][::-1] + 0.5
    other[position + 1 :] += 0.5
    two, _ = fitted_anywhere(other, lines, WINDOW, NOISE, REFIT, EVERY)
    seen = slice(-REFIT - field.LAGS + 1, None)  # of the last fit, up to the position
    assert two[4].residuals[-1, seen] == pytest.approx(one[4].residuals[-1, seen], abs=1e-9)
    other[position - WINDOW + 1] += 0.5
    three, _ = fitted_anywhere(other, lines, WINDOW, NOISE, REFIT, EVERY)
    assert three[4].residuals[-1, seen] != pytest.approx(one[4].residuals[-1, seen], abs=1e-6)


def test_no_height_from_outside_is_read(zeros_100k: Array) -> None:
    fields = SpacingConfig(
        layout="mlp", context=32, eval_tail=32, prime_lines=5, prime_window=400, height_source="inferred"
    )
    ordinates, spacings = stretch(zeros_100k, 30_000, 1024)
    heights = np.log(ordinates[:-1:256] / (2 * math.pi))
    one, two = (table.compute(fields, spacings, given) for given in (heights, np.full_like(heights, np.nan)))
    assert one.field is not None
    assert two.field is not None
    for name in ("residuals", "zeta", "target"):
        assert np.array_equal(getattr(one.field, name), getattr(two.field, name))


def test_matrices_without_primes_have_no_height_to_find() -> None:
    """What lines foretell of them is worse than the best of linear filters, .424: there is nothing to be had."""
    fields = SpacingConfig(
        layout="mlp", context=32, eval_tail=32, prime_lines=100, prime_window=512, height_source="inferred"
    )
    spacings = gue.spacings(4096, 1)
    raw = table.compute(fields, spacings, np.zeros(16))
    numbers = table.learn(fields, raw, spacings, 3072)
    offset = table.assemble(fields, raw, numbers, len(spacings)).offset
    left = spacings[3072:] - offset[3071:-1]
    nll = 0.5 * np.mean(left**2) / numbers.spread**2 + math.log(numbers.spread) + 0.5 * math.log(2 * math.pi)
    assert nll > 0.424


def test_a_series_shorter_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="prime_window = 300: the series holds 299 spacings"):
        fitted_anywhere(np.ones(299), lines_up_to(5), WINDOW, NOISE, REFIT, EVERY)
