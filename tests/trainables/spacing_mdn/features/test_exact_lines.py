"""Class III looks too good to be true, so it is looked at by other means than the laws that hold for all features."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.reference import prime_field
from trainables.arrays import Array
from trainables.spacing_mdn.config import SpacingConfig
from trainables.spacing_mdn.data.zeros import unfolded_spacings
from trainables.spacing_mdn.features import table

FIRST = 30_000  # of the zeros, from 0
BLOCKS = 8
FIELDS = SpacingConfig(
    layout="mlp",
    context=32,
    eval_tail=32,
    data="first100k",
    prime_lines=200,
    prime_phases="exact",
    prime_grid=True,
)


@pytest.fixture(scope="module")
def zeros(zeros_100k: Array) -> Array:
    return zeros_100k[FIRST : FIRST + 256 * BLOCKS + 1]


def raw_of(zeros: Array) -> table.Raw:
    return table.compute(FIELDS, unfolded_spacings(zeros), np.log(zeros[:-1:256] / (2 * math.pi)))


@pytest.fixture(scope="module")
def rows(zeros: Array) -> table.Features:
    spacings = unfolded_spacings(zeros)
    raw = raw_of(zeros)
    return table.assemble(FIELDS, raw, table.learn(FIELDS, raw, spacings, 1024), len(spacings))


@pytest.mark.parametrize("position", [100, 1023, 1278, 1279, 1280, 2047])
def test_a_row_is_that_of_a_slow_reference_which_is_given_no_next_zero(
    position: int, rows: table.Features, zeros: Array
) -> None:
    known = zeros[position + 1 - 40 : position + 2]
    numbers = rows.numbers
    want = prime_field.row(known.tolist(), FIRST + position + 1 - 40 + 1, 200, numbers.regression)
    got = rows.channels[position] * numbers.std + numbers.mean
    # Channels are float32, and one height serves the 16 positions of a fit.
    assert got == pytest.approx(want, abs=2e-3)
    assert got[[0, 2]] == pytest.approx(want[[0, 2]], abs=1e-6)
    assert rows.offset[position] == pytest.approx(numbers.offset[0] + numbers.offset[1] * (want[1] + 1), abs=1e-3)


@pytest.mark.parametrize("moved", [1.0, 1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("position", [1000, 1278, 1279])
def test_the_next_zero_moves_no_feature_of_its_own_row(
    position: int, moved: float, rows: table.Features, zeros: Array
) -> None:
    """Where it is the start of a block as well (1278), whose ordinate the features are told."""
    target = position + 2
    other = zeros.copy()
    other[target] += 0.45 * moved * (zeros[target + 1] - zeros[target])
    changed = table.assemble(FIELDS, raw_of(other), rows.numbers, len(rows.offset))
    assert np.array_equal(changed.channels[: position + 1], rows.channels[: position + 1])
    assert np.array_equal(changed.offset[: position + 1], rows.offset[: position + 1])
    assert not np.array_equal(changed.channels[position + 1], rows.channels[position + 1])


def test_what_is_foretold_does_not_hang_on_the_last_digits_of_ordinates(rows: table.Features, zeros: Array) -> None:
    """Ordinates of blocks in float32, right to some thousandths, foretell the next zero as well."""
    spacings = unfolded_spacings(zeros)
    told = zeros[:-1:256].astype(np.float32).astype(np.float64)
    assert 1e-4 < np.abs(told - zeros[:-1:256]).max() < 2e-3
    raw = table.compute(FIELDS, spacings, np.log(told / (2 * math.pi)))
    changed = table.assemble(FIELDS, raw, rows.numbers, len(spacings))
    errors = [float(np.std(spacings[1025:] - part.offset[1024:-1])) for part in (rows, changed)]
    assert errors[1] == pytest.approx(errors[0], rel=0.02)
    assert errors[0] < 0.25 * spacings.std()
