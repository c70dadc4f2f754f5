"""What readings along a run say of its end: closed forms, laws, and chains that were drawn and are found again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from analysis.stats.chain import Chain, Readings, fit_chain, log_expected_gain

STEPS = (10, 100, 1000)
SLOPES, DRIFT, NOISE, FALL = (0.8, 0.6), 0.6, 0.2, 5.0


def path(rng: random.Random) -> list[float]:
    """A config's means at the levels; they fall from level to level by far more than they spread."""
    means = [rng.gauss(0, 1)]
    for slope in SLOPES:
        means.append(slope * (means[-1] + FALL * (len(means) - 1)) - FALL * len(means) + rng.gauss(0, DRIFT))
    return means


def read(means: list[float], rng: random.Random, seeds: int = 2) -> list[dict[int, float]]:
    return [{seed: mean + rng.gauss(0, NOISE) for seed in range(seeds)} for mean in means]


def drawn(num: int, rng: random.Random) -> list[Readings]:
    return [read(path(rng), rng) for _ in range(num)]


def fitted(candidates: list[Readings]) -> Chain:
    chain = fit_chain(STEPS, candidates, 0)
    assert chain is not None
    return chain


def changed(candidates: list[Readings], change: Callable[[int, float], float]) -> list[Readings]:
    """All readings by seed and value."""
    return [[{seed: change(seed, v) for seed, v in at.items()} for at in row] for row in candidates]


# --- expected gain ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [-2.0, 0.0, 0.3, 2.0, 7.0])
@pytest.mark.parametrize("sd", [0.5, 1.0, 3.0])
def test_the_expected_gain_is_the_integral_that_defines_it(behind: float, sd: float) -> None:
    num, width = 20_000, 10 * sd + max(0.0, -behind)
    total = 0.0
    for i in range(num):
        gain = (i + 0.5) * width / num
        at = (gain + behind) / sd
        total += gain * math.exp(-0.5 * at * at) / (sd * math.sqrt(2 * math.pi)) * width / num
    assert math.exp(log_expected_gain(behind, sd)) == pytest.approx(total, rel=1e-4)


def test_the_expected_gain_falls_without_a_break_however_far_behind() -> None:
    gains = [log_expected_gain(u / 100, 1.0) for u in range(0, 10_000, 7)]
    assert all(a > b for a, b in pairwise(gains))
    assert log_expected_gain(30.0001, 1.0) == pytest.approx(log_expected_gain(29.9999, 1.0), abs=0.02)
    assert log_expected_gain(0.0, 2.0) == pytest.approx(math.log(2.0 / math.sqrt(2 * math.pi)))
    assert log_expected_gain(1.0, 0.0) == -math.inf


# --- the fit ---------------------------------------------------------------------------------------------------------


def test_fewer_than_two_candidates_say_nothing() -> None:
    assert fit_chain(STEPS, [], 0) is None
    assert fit_chain(STEPS, [[{0: 1.0}, {}, {}], [{}, {}, {}]], 0) is None


def test_a_chain_that_was_drawn_is_found_again() -> None:
    """Above the first level, where no value reaches the cap."""
    chain = fitted(drawn(4000, random.Random(1)))
    between = [1.0]
    for slope in SLOPES:
        between.append(slope**2 * between[-1] + DRIFT**2)
    for level in (1, 2):
        assert chain.noise[level] == pytest.approx(NOISE**2, rel=0.1)
        assert chain.between[level] == pytest.approx(between[level], rel=0.1)
        assert chain.means[level] == pytest.approx(-FALL * level, abs=0.1)
    assert chain.to_end[1:] == pytest.approx((SLOPES[1], 1.0), rel=0.1)
    known = between[2] ** 2 / (between[2] + NOISE**2 / 2)
    assert chain.explained(2, 2) == pytest.approx(known, rel=0.1)
    assert chain.explained(1, 1) == pytest.approx(SLOPES[1] ** 2 * between[1] ** 2 / (between[1] + NOISE**2), rel=0.2)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("seeds", [1, 2])
def test_estimates_are_off_by_as_much_as_they_say(level: int, seeds: int) -> None:
    rng = random.Random(2)
    chain = fitted(drawn(2000, rng))
    off = []
    for _ in range(2000):
        means = path(rng)
        values = read(means, rng, seeds)[level]
        if max(values.values()) < chain.cap:
            known = chain.estimate(level, values)
            off.append((means[-1] - known.mean) / math.sqrt(known.variance))
    assert len(off) > 800
    assert abs(sum(off) / len(off)) < 0.25
    assert math.sqrt(sum(x * x for x in off) / len(off)) == pytest.approx(1.0, abs=0.2)


def test_more_seeds_and_later_levels_explain_more_and_never_all() -> None:
    chain = fitted(drawn(300, random.Random(3)))
    for level in range(3):
        assert chain.explained(level, 1) < chain.explained(level, 2) < chain.explained(level, 100)
    assert chain.explained(0, 1) < chain.explained(1, 1) < chain.explained(2, 1) < chain.of_a_draw.variance


def test_with_no_candidate_at_a_level_the_prior_stands() -> None:
    """Later readings explain more a priori, too."""
    chain = fitted([[row[0], {}, {}] for row in drawn(50, random.Random(4))])
    assert chain.explained(0, 1) < chain.explained(1, 1) < chain.explained(2, 1)
    assert chain.estimate(0, {0: -2.0}).mean < chain.estimate(0, {0: -1.0}).mean < chain.of_a_draw.mean


# --- laws ------------------------------------------------------------------------------------------------------------


def test_the_order_of_candidates_and_seeds_does_not_matter() -> None:
    rng = random.Random(5)
    candidates = drawn(60, rng)
    mixed = [[dict(reversed(at.items())) for at in row] for row in rng.sample(candidates, 60)]
    assert fitted(mixed) == fitted(candidates)


def test_another_unit_and_another_zero_change_nothing_else() -> None:
    candidates = drawn(60, random.Random(6))
    scale, zero = 1000.0, -7.0
    chain, other = fitted(candidates), fitted(changed(candidates, lambda _, v: scale * v + zero))
    known, same = chain.estimate(1, {0: -5.5}), other.estimate(1, {0: scale * -5.5 + zero})
    assert same.mean == pytest.approx(scale * known.mean + zero)
    assert same.variance == pytest.approx(scale**2 * known.variance)
    assert other.explained(0, 1) == pytest.approx(scale**2 * chain.explained(0, 1))


def test_a_seed_that_is_worse_for_all_counts_against_none() -> None:
    candidates = drawn(400, random.Random(7))
    harder = fitted(changed(candidates, lambda seed, v: v + 0.5 * seed))
    plain = fitted(candidates)
    assert harder.shifts[2][1] == pytest.approx(0.5, abs=0.05)
    assert harder.noise[2] == pytest.approx(plain.noise[2], rel=0.05)
    assert harder.estimate(2, {0: -10.0, 1: -9.5}).mean == pytest.approx(
        plain.estimate(2, {0: -10.0, 1: -10.0}).mean, abs=0.05
    )


def test_a_lost_seed_counts_as_the_cap() -> None:
    chain = fitted(drawn(50, random.Random(8)))
    assert chain.estimate(2, {0: None, 1: -10.0}) == chain.estimate(2, {0: chain.cap, 1: -10.0})
    assert chain.estimate(2, {0: 1e9}) == chain.estimate(2, {0: chain.cap})


def test_an_early_outlier_is_not_taken_at_its_word() -> None:
    chain = fitted(drawn(50, random.Random(9)))
    assert chain.estimate(0, {0: -1e6}) == chain.estimate(0, {0: -1e9})
    assert chain.estimate(2, {0: -1e6}).mean > chain.estimate(2, {0: -1e9}).mean


@pytest.mark.parametrize("value", [0.0, 1.0, -3e8])
def test_candidates_that_are_all_alike_give_numbers(value: float) -> None:
    chain = fitted([[{0: value}, {0: value}, {0: value, 1: value}]] * 5)
    known = chain.estimate(1, {0: value})
    assert known.mean == pytest.approx(value, abs=1e-6 * (1 + abs(value)))
    assert 0 < known.variance < math.inf
