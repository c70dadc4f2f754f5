"""Heights from spacings: the smooth count inverted, with exact, rounded and unknown starts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainables.arrays import Array
from trainables.spacing_mdn.data.zeros import unfolded_spacings
from trainables.spacing_mdn.features.heights import block_log_heights, heights_of, rounded


@pytest.fixture(scope="module")
def ordinates(zeros_100k: Array) -> Array:
    return zeros_100k[50_000:52_001]


def logs(times: Array) -> Array:
    return np.log(times / (2.0 * math.pi))


def test_exact_heights_are_the_ordinates(ordinates: Array) -> None:
    at = heights_of(unfolded_spacings(ordinates), logs(ordinates[:-1:256]), 256, exact=True)
    assert at.times == pytest.approx(ordinates, abs=1e-8)
    number = np.arange(50_001, 52_002)  # of each zero, from 1
    smooth = ordinates / (2 * math.pi) * (logs(ordinates) - 1) + 7 / 8 + 1 / (48 * math.pi * ordinates)
    assert at.counts == pytest.approx(number - 0.5 - smooth, abs=1e-8)


def test_rounded_heights_keep_the_gaps_and_no_ordinate(ordinates: Array) -> None:
    starts = rounded(logs(ordinates[:-1:256]), 1e-3)
    assert starts == pytest.approx(np.round(1000 * starts) / 1000, abs=1e-12)
    at = heights_of(unfolded_spacings(ordinates), starts, 256, exact=False)
    assert np.diff(at.times) == pytest.approx(np.diff(ordinates), rel=1e-4)
    assert at.counts == pytest.approx(np.arange(2001) - np.append(0, np.cumsum(unfolded_spacings(ordinates))), abs=1e-9)
    assert at.log_height == pytest.approx(logs(ordinates), abs=1e-3)


def test_no_rounding_leaves_heights_as_they_are(ordinates: Array) -> None:
    assert rounded(logs(ordinates), 0.0) is not None
    assert np.array_equal(rounded(logs(ordinates), 0.0), logs(ordinates))


def test_starts_of_blocks_are_found_from_the_end(ordinates: Array) -> None:
    spacings = unfolded_spacings(ordinates)
    found = block_log_heights(spacings, float(logs(ordinates[-1:])[0]), 256)
    assert found == pytest.approx(logs(ordinates[:-1:256]), abs=1e-11)


def test_a_series_below_the_first_zero_is_held_there() -> None:
    found = block_log_heights(np.ones(600), 1.5, 256)
    assert np.isfinite(found).all()
    assert found.min() == pytest.approx(math.log(14.134725141734693 / (2 * math.pi)))
