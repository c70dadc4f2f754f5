"""Sines planted at the lines of primes are found, and what is left of them is what was left."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from analysis.spacing_mdn import prime_lines
from analysis.spacing_mdn.prime_lines import fit_lines, resolved_primes, smooth_heights
from tests.analysis.conftest import MakeSubject, MakeTask
from tests.analysis.spacing_mdn.set_by_hand import FIRST, PLAIN, as_data, make, say, zeta_heights
from tests.analysis.values import estimate
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.data.spacings import Part, SpacingData

TRAIN, VAL = 40, 40
NOISE, SINE = 0.2, 0.15
PRIMES = np.array([2.0, 3.0, 7.0])
LINES_SHARE = 3 * SINE**2 / 2 / (3 * SINE**2 / 2 + NOISE**2)


def heights(num_blocks: int) -> np.ndarray:
    found = smooth_heights(Part(np.ones(num_blocks * BLOCK), zeta_heights(FIRST, num_blocks)))
    assert found is not None
    return found


def sines(at: np.ndarray) -> np.ndarray:
    wave: np.ndarray = SINE * np.cos(np.outer(at, np.log(PRIMES)) + PRIMES).sum(axis=1)
    return wave


@cache
def planted() -> SpacingData:
    at = heights(TRAIN + VAL)
    series = 1.0 + sines(at) + NOISE * np.random.default_rng(3).normal(size=len(at))
    return as_data(series[: TRAIN * BLOCK], series[TRAIN * BLOCK :])


def test_heights_count_the_zeros_evenly() -> None:
    found = heights(8)
    count = found / (2 * math.pi) * (np.log(found / (2 * math.pi)) - 1.0)
    assert np.diff(count) == pytest.approx(1.0, abs=1e-6)
    assert count[0] == pytest.approx(FIRST, abs=1e-6)


def test_primes_are_those_that_can_be_told_apart() -> None:
    assert resolved_primes(math.log(400.0), 10**6).tolist() == [2, 3, 5, 7, 11, 13, 17, 19]
    assert resolved_primes(10.0, 75).tolist() == [2, 3, 5, 7]
    assert resolved_primes(1.0, 1000).tolist() == []
    assert len(resolved_primes(20.0, 10**7)) == 200


def test_a_fit_gives_the_planted_shares_with_intervals_that_hold_them() -> None:
    rng, at = np.random.default_rng(0), heights(12)
    primes = resolved_primes(8.0, len(at))
    assert len(primes) == 16
    shares, kept = [], []
    for _ in range(40):
        noise = NOISE * rng.normal(size=len(at))
        lines = fit_lines(at, primes, sines(at) + noise, 0.4 * sines(at) + noise)
        shares.append(lines.share_left)
        kept.append(lines.of_spacings)
    assert np.mean([share.value for share in shares]) == pytest.approx(0.16, abs=0.01)
    assert np.mean([share.low <= 0.16 <= share.high for share in shares]) >= 0.85
    assert np.mean([share.value for share in kept]) == pytest.approx(LINES_SHARE, abs=0.01)
    assert np.mean([share.low <= LINES_SHARE <= share.high for share in kept]) >= 0.85


def test_power_is_at_the_planted_primes() -> None:
    at = heights(12)
    primes = resolved_primes(8.0, len(at))
    noise = 0.01 * np.random.default_rng(1).normal(size=len(at))
    power = fit_lines(at, primes, sines(at) + noise, noise).power
    is_planted = np.isin(primes, PRIMES)
    assert power[0, is_planted] == pytest.approx(SINE**2 / 2, rel=0.02)
    assert power[0, ~is_planted].max() < 1e-5
    assert power[1].max() < 1e-5


def test_noise_has_no_lines() -> None:
    at = heights(12)
    noise = np.random.default_rng(2).normal(size=(30, len(at)))
    found = [fit_lines(at, resolved_primes(8.0, len(at)), row, row).of_spacings for row in noise]
    assert np.mean([share.value for share in found]) == pytest.approx(0.0, abs=0.002)
    assert np.mean([share.low > 0.0 for share in found]) <= 0.15


def test_a_constant_leaves_every_line_and_is_warned_of(make_subject: MakeSubject) -> None:
    task = make(planted(), **PLAIN)
    say(task, (1.0, 1.0), 0.25)
    found = prime_lines.prime_lines(make_subject(task))
    assert found.verdict == "warn"
    assert estimate(found, "share_left").value == pytest.approx(1.0, abs=1e-3)
    assert estimate(found, "lines_of_spacings").value == pytest.approx(LINES_SHARE, abs=0.02)
    assert [plot.kind for plot in found.plots] == ["points", "line"]
    spectrum = found.plots[1].series[0]
    # The line of 2, at ln 2 / ln(t / 2 pi), stands above the noise.
    frequency = math.log(2.0) / planted().val.log_height.mean()
    nearest = int(np.abs(np.array(spectrum.x) - frequency).argmin())
    assert spectrum.y[nearest] > 4 * np.median(spectrum.y)


def test_a_linear_filter_leaves_little(make_subject: MakeSubject) -> None:
    task = make(planted(), **PLAIN, ar_features=128)
    say(task, (0.0, 0.0), 0.25)
    found = prime_lines.prime_lines(make_subject(task))
    assert found.verdict == "pass"
    assert estimate(found, "share_left").high < 0.2
    assert estimate(found, "lines_of_residuals").value < estimate(found, "lines_of_spacings").value


def test_a_slot_model_is_looked_at_alike(make_subject: MakeSubject) -> None:
    found = prime_lines.prime_lines(make_subject(make(planted())))
    assert found.verdict == "warn"
    assert estimate(found, "share_left").value == pytest.approx(1.0, abs=0.1)


def test_without_heights_lines_or_targets_there_is_no_evidence(make_task: MakeTask, make_subject: MakeSubject) -> None:
    other_heights = prime_lines.prime_lines(make_subject(make_task()))
    noise = 1.0 + 0.2 * np.random.default_rng(4).normal(size=40 * BLOCK)
    no_lines = prime_lines.prime_lines(make_subject(make(as_data(noise[: 20 * BLOCK], noise[20 * BLOCK :]), **PLAIN)))
    short = as_data(noise[: 20 * BLOCK], noise[20 * BLOCK : 22 * BLOCK])
    few = prime_lines.prime_lines(make_subject(make(short, **PLAIN | {"context": 2 * BLOCK - 12, "eval_tail": 1})))
    for found, says in ((other_heights, "not those of zeta"), (no_lines, "no variance"), (few, "too few")):
        assert found.verdict == "no_evidence"
        assert says in found.summary
    assert smooth_heights(Part(np.ones(4 * BLOCK), np.zeros(4))) is None
