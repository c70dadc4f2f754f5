"""Standard errors of scores over seeds: as wide as they say, also where few candidates have few seeds."""

from __future__ import annotations

import math
import random

import pytest

from analysis.stats.scores import SeedScores, Values
from analysis.stats.student import t_quantile

SEEDS = (7, 42, 1337)


def fitted(table: list[Values], num_seeds: int) -> SeedScores:
    scores = SeedScores("mean", 3, None, SEEDS[:num_seeds])
    scores.fit(table, max(v for row in table for v in row.values() if v is not None))
    return scores


@pytest.mark.parametrize(("candidates", "num_seeds"), [(2, 2), (3, 2), (2, 3), (5, 3)])
def test_intervals_of_scores_cover_as_often_as_they_say(candidates: int, num_seeds: int) -> None:
    rng, runs, covered = random.Random(candidates * 10 + num_seeds), 1500, 0
    for _ in range(runs):
        of_seeds = {seed: rng.gauss(0.0, 1.0) for seed in SEEDS[:num_seeds]}
        truth = [rng.gauss(0.0, 1.0) for _ in range(candidates)]
        table: list[Values] = [
            {seed: mean + shift + rng.gauss(0.0, 0.5) for seed, shift in of_seeds.items()} for mean in truth
        ]
        scores, shared = fitted(table, num_seeds), math.fsum(of_seeds.values()) / num_seeds
        error, df = scores.error(table[0])
        half = t_quantile(0.975, df) * error
        covered += abs(scores.score(table[0], 0.0) - shared - truth[0]) <= half
    assert covered / runs > 0.95 - 3.0 * math.sqrt(0.95 * 0.05 / runs)


def test_an_error_has_no_more_degrees_of_freedom_than_all_candidates_together() -> None:
    # Two candidates with two seeds: their residuals mirror each other, so that one number is all there is.
    alike: list[Values] = [{7: 1.0, 42: 1.3}, {7: 2.0, 42: 2.1}]
    scores = fitted(alike, 2)
    assert scores.error(alike[0]) == pytest.approx((math.sqrt(0.01 / 2), 1.0))
    assert scores.prior.df == pytest.approx(1.0)
    # One seed was lost: its candidate borrows what the others know, and no more.
    assert scores.error({7: 1.0, 42: None})[1] == pytest.approx(1.0)


def test_what_the_next_gate_knows_counts_for_no_more_than_it_rests_on() -> None:
    later = fitted([{7: 1.0, 42: 1.3}, {7: 2.0, 42: 2.1}], 2)
    here = fitted([{7: 1.0}, {7: 2.0}], 1)
    assert math.isnan(here.error({7: 1.0})[0])
    error, df = here.error({7: 1.0}, later.prior)
    assert (error, df) == pytest.approx((math.sqrt(0.01), 1.0))


def test_without_a_fit_a_candidates_own_seeds_are_all_there_is() -> None:
    error, df = SeedScores("mean", 3, None, SEEDS).error({7: 1.0, 42: 2.0, 1337: 3.0})
    assert (error, df) == pytest.approx((1.0 / math.sqrt(3.0), 2.0))
    assert math.isnan(SeedScores("mean", 3, None, SEEDS).error({7: 1.0})[0])
