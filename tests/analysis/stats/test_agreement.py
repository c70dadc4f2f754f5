"""How well ranks last: the estimate against simulated gates, the share against the best of simulated searches."""

from __future__ import annotations

import math
import random
from statistics import fmean

import numpy as np
import pytest

from analysis.stats.agreement import LearnedShare, agreement, best_share

SHARES = [0.8, 0.4, 0.2, 0.1, 0.05]


def pairs(correlation: float, num: int, share: float, rng: np.random.Generator) -> tuple[float, int]:
    """Spearman's correlation of the best ``share`` of ``num`` simulated candidates, and how many they are."""
    first = rng.standard_normal(num)
    then = correlation * first + math.sqrt(1 - correlation**2) * rng.standard_normal(num)
    kept = np.argsort(first)[: max(4, int(num * share))]
    places = [np.argsort(np.argsort(values[kept])) for values in (first, then)]
    moved = float(((places[0] - places[1]) ** 2).mean())
    return 1 - 6 * moved / (len(kept) ** 2 - 1), len(kept)


def test_without_pairs_it_is_the_prior() -> None:
    found = agreement(0.0, 0, 1.0, 0.6, 6.0)
    assert (found.value, found.num_pairs) == (pytest.approx(0.6), 0)
    assert found.low < 0 < 0.6 < found.high < 1
    # Three pairs say nothing yet either: Fisher's interval needs a fourth.
    assert agreement(-1.0, 3, 1.0, 0.6, 6.0).value == pytest.approx(0.6)


def test_many_pairs_outweigh_the_prior_and_narrow_the_interval() -> None:
    few, many = agreement(0.1, 10, 1.0, 0.9, 6.0), agreement(0.1, 1000, 1.0, 0.9, 6.0)
    assert 0.1 < few.value < 0.9
    assert many.value == pytest.approx(0.1, abs=0.02)
    assert many.high - many.low < 0.2 * (few.high - few.low)


@pytest.mark.parametrize("correlation", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("share", [1.0, 0.4, 0.2])
def test_selection_is_corrected_and_the_interval_covers(correlation: float, share: float) -> None:
    rng = np.random.default_rng(1)
    found = [agreement(*pairs(correlation, 200, share, rng), share, correlation, 1e-6) for _ in range(300)]
    assert float(np.median([one.value for one in found])) == pytest.approx(correlation, abs=0.05)
    assert fmean(one.low <= correlation <= one.high for one in found) >= 0.9


def test_the_correction_does_not_touch_a_prior() -> None:
    assert agreement(0.0, 0, 0.1, 0.7, 6.0).value == pytest.approx(0.7)


def winner(correlation: float, tried: int, passed: int, rng: np.random.Generator, repeats: int = 400) -> float:
    first = rng.standard_normal((repeats, tried))
    truth = correlation * first + math.sqrt(1 - correlation**2) * rng.standard_normal((repeats, tried))
    order = np.argsort(-first, axis=1)[:, :passed]
    return float(np.take_along_axis(truth, order, axis=1).max(axis=1).mean())


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize(("cost", "num"), [(2.0, 40), (9.0, 40), (9.0, 200)])
def test_the_share_is_nearly_as_good_as_the_best_of_simulated_searches(
    correlation: float, cost: float, num: int
) -> None:
    rng = np.random.default_rng(2)
    budget = num * (1 + cost / 3)

    def simulated(share: float) -> float:
        tried = max(1, int(budget / (1 + cost * share)))
        return winner(correlation, tried, max(1, int(tried * share)), rng)

    chosen = best_share(correlation, num, math.inf, cost, 1 / 3, SHARES)
    assert simulated(chosen) >= max(map(simulated, SHARES)) - 0.12


def test_where_ranks_mean_nothing_more_go_on_and_where_they_last_fewer() -> None:
    shares = [best_share(c, 50, math.inf, 6.0, 0.3, SHARES) for c in (-0.5, 0.0, 0.3, 0.6, 0.9)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 0.8
    assert shares[-1] == 0.05


def test_where_no_more_can_come_none_is_cut_to_make_room_for_others() -> None:
    for correlation in (0.0, 0.5, 0.9):
        assert best_share(correlation, 20, 20.0, 6.0, 0.4, SHARES) >= 0.4


def test_all_gates_together_let_through_no_less_than_seven_tenths_and_no_more_than_twice_as_many() -> None:
    rng = random.Random(3)
    for _ in range(200):
        gates = [LearnedShare(1 / 3, rng.random(), rng.uniform(0.5, 9), 100 / 3**k, math.inf) for k in range(4)]
        passed = 1.0
        for gate in gates:
            gate.learn(rng.randint(4, 99), rng.randint(0, 30), rng.uniform(0, 12), rng.random())
            passed = gate.choose(passed)
            assert 0 < gate.share <= 1
            assert 0.7 - 1e-9 <= passed <= 2 + 1e-9
