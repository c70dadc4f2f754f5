"""Claims against scipy, brute force over completions, and simulation of their false rates while one looks at them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import product
from statistics import fmean, median
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, optimize, stats

from analysis.stats.best_of_k import best_of_k, otsu
from analysis.stats.claims import Claim, Test, can_decide, e_value, holm, judge, sign_flip_p
from analysis.stats.seeds import Prior

Array = NDArray[np.float64]

TESTS: tuple[Test, ...] = get_args(Test)
NUM_MAX, ALPHA, NUM_RUNS = 8, 0.05, 20_000

DIFFERENCES = st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), max_size=NUM_MAX)


# --- the pieces


@settings(deadline=None)
@given(DIFFERENCES)
def test_sign_flips_are_counted_exactly(differences: list[float]) -> None:
    patterns = product((-1, 1), repeat=len(differences))
    sums = [math.fsum(s * d for s, d in zip(signs, differences, strict=True)) for signs in patterns]
    observed = math.fsum(differences)
    assert sign_flip_p(differences) == sum(total <= observed + 1e-9 for total in sums) / len(sums)


def test_sign_flips_are_scipys_and_count_ties() -> None:
    values = np.random.default_rng(0).normal(size=9) - 0.5
    test = stats.permutation_test((values,), np.mean, permutation_type="samples", alternative="less", n_resamples=1000)
    assert sign_flip_p(values.tolist()) == test.pvalue
    assert sign_flip_p([-1.0] * 8) == 2**-8
    assert sign_flip_p([-0.1, -0.2, 0.3]) == sign_flip_p([0.3, -0.2, -0.1]) == 5 / 8
    assert sign_flip_p([]) == sign_flip_p([0.0] * 4) == 1.0
    assert sign_flip_p([-1.0] * 20) == 2**-20
    with pytest.raises(ValueError, match="21 differences: sign flips take at most 20"):
        sign_flip_p([-1.0] * 21)


def test_the_e_value_is_the_mixture_of_likelihood_ratios_with_a_known_variance() -> None:
    differences, sigma = [-1.0, 0.2, -2.0, -0.4], 0.7
    n, spread, total = len(differences), math.sqrt(2) * sigma, sum(differences)

    def ratio(effect: float) -> float:
        mean = effect * spread
        return math.exp((mean * total - n * mean**2 / 2) / spread**2) * float(stats.norm.pdf(effect, scale=1.5))

    expected = integrate.quad(ratio, -20, 20)[0]
    assert e_value(differences, Prior(math.inf, sigma**2), c=1.5) == pytest.approx(expected, rel=1e-9)


def test_the_e_value_without_a_prior_is_the_ratio_of_noncentral_t_densities() -> None:
    # The mean's t under an effect drawn from N(0, c^2) is sqrt(1 + n c^2) times a t.
    differences, c = [-1.0, 0.2, -2.0, -0.4, -0.9], 0.8
    n = len(differences)
    t, scale = stats.ttest_1samp(differences, 0.0).statistic, math.sqrt(1 + n * c * c)
    expected = stats.t.pdf(t / scale, n - 1) / scale / stats.t.pdf(t, n - 1)
    assert e_value(differences, c=c) == pytest.approx(expected, rel=1e-12)
    assert e_value(differences, Prior(0.0, math.nan), c=c) == e_value(differences, c=c)
    assert e_value(differences, Prior(1e12, 0.4), c=c) == pytest.approx(e_value(differences, Prior(math.inf, 0.4), c=c))


def test_the_e_value_at_its_limits() -> None:
    assert e_value([]) == e_value([-5.0]) == 1.0
    assert e_value([-1.0] * 4) == pytest.approx(5.0**1.5)
    assert e_value([-1.0, -1.0 + 1e-7, -1.0, -1.0]) == pytest.approx(5.0**1.5, rel=1e-3)
    assert e_value([0.0] * 4) == pytest.approx(5.0**-0.5)
    assert e_value([-1.0, 1.0] * 2, Prior(3.0, 1.0)) == pytest.approx(5.0**-0.5)
    assert e_value([-1.0] * 2, Prior(math.inf, 0.0)) == math.inf
    assert e_value([-1e200] * 2, Prior(math.inf, 1.0)) == math.inf
    assert e_value([1.0, -2.0, 0.5]) == pytest.approx(e_value([-1.0, 2.0, -0.5]))


@pytest.mark.parametrize("test", TESTS)
def test_can_decide_is_what_the_clearest_differences_give(test: Test) -> None:
    for num_max in range(1, 12):
        for alpha in (0.01, 0.05, 0.3):
            clearest = judge([-1.0] * num_max, num_max, test=test, alpha=alpha)
            assert can_decide(num_max, test, alpha) == (clearest.verdict == "better")
    assert [n for n in range(1, 9) if can_decide(n, "sign_flip")] == [6, 7, 8]
    assert [n for n in range(1, 9) if can_decide(n, "e_process")] == [5, 6, 7, 8]
    assert can_decide(4, "e_process", prior_df=1.0)
    assert not can_decide(2, "e_process", prior_df=math.inf)
    assert not can_decide(21, "sign_flip")


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    for p in (1.1, -0.1, math.nan):
        with pytest.raises(ValueError, match="each takes 0 to 1"):
            holm([0.5, p])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_its_steps_reject(p_values: list[float], alpha: float) -> None:
    rejected = 0
    for rank, p in enumerate(sorted(p_values)):
        if p * (len(p_values) - rank) > alpha:
            break
        rejected += 1
    assert sum(p <= alpha for p in holm(p_values)) == rejected


# --- one judgement


def test_a_claim_shows_what_a_paired_t_test_does() -> None:
    differences = [-0.9, -1.1, -0.3, 0.2, -1.4, -0.6, 0.0, -0.8]
    expected = stats.ttest_1samp(differences, 0.0)
    interval = expected.confidence_interval(0.95)
    claim = judge(differences, 8, test="t")
    assert claim.p_value == pytest.approx(expected.pvalue, rel=1e-10)
    assert claim.difference[1:] == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert (claim.verdict, claim.decided, claim.num_pairs) == ("better", True, 8)
    assert (claim.difference.value, claim.probability_better.value) == pytest.approx((fmean(differences), 6.5 / 8))
    assert 0 < claim.probability_better.low < 6.5 / 8 < claim.probability_better.high < 1
    assert claim.e_value is None
    assert judge([-d for d in differences], 8, test="t").verdict == "worse"
    flips = judge(differences, 8)
    assert (flips.verdict, flips.p_value) == ("better", 2 * sign_flip_p(differences))
    assert "p = " in flips.reason


def test_a_fixed_test_waits_for_its_last_pair() -> None:
    for test in ("sign_flip", "t"):
        claim = judge([-1.0, -1.1, -0.9, -1.0, -1.2, -0.9, -1.0], 8, test=test)
        assert (claim.verdict, claim.decided) == ("undecided", False)
        assert "7 of 8 pairs" in claim.reason


def test_an_empty_and_a_single_pair() -> None:
    for test in TESTS:
        claim = judge([], 8, test=test)
        assert (claim.verdict, claim.decided, claim.num_pairs, claim.p_value) == ("undecided", False, 0, 1.0)
        assert all(map(math.isnan, (*claim.difference, claim.probability_better.value)))
        assert claim.probability_better[1:] == (0.0, 1.0)
        one = judge([-1.0], 8, test=test)
        assert math.isnan(one.difference.low)
        assert (one.difference.value, one.probability_better.value, one.decided) == (-1.0, 1.0, False)


def test_five_pairs_are_undecided_from_the_start_by_sign_flips() -> None:
    for differences in ([], [-1.0] * 3):
        claim = judge(differences, 5)
        assert (claim.verdict, claim.decided) == ("undecided", True)
        assert "no outcome of the rest" in claim.reason
    assert "cannot reach" in judge([-1.0] * 5, 5).reason
    assert not judge([-1.0] * 3, 5, region=2.0).decided


def test_equivalence_takes_the_whole_interval_and_the_last_pair() -> None:
    small = [-0.01, -0.011, -0.012, -0.009, -0.01, -0.011, -0.01, -0.009]
    for test in TESTS:
        assert judge(small, 8, test=test).verdict == "better"
        claim = judge(small, 8, test=test, region=0.02)
        assert (claim.verdict, claim.decided) == ("equivalent", True)
        assert "inside +-0.02" in claim.reason
        assert judge(small[:7], 8, test=test, region=0.02).decided is False
        assert judge(small, 8, test=test, region=0.0105).verdict == "better"
        assert judge([0.0] * 8, 8, test=test, region=1e-9).verdict == "equivalent"
        assert judge([0.0] * 8, 8, test=test).verdict == "undecided"


def test_an_e_process_stays_where_it_stopped() -> None:
    differences = [-1.0, -1.1, -0.9, -1.0, -1.05, 2.0, 3.0, 4.0]
    first = next(n for n in range(9) if judge(differences[:n], 8, test="e_process").decided)
    assert first == 5
    stopped = judge(differences[:first], 8, test="e_process")
    for n in range(first, 9):
        claim = judge(differences[:n], 8, test="e_process")
        assert (claim.verdict, claim.decided, claim.e_value) == ("better", True, stopped.e_value)
        assert claim.p_value == pytest.approx(1.0 / e_value(differences[:first]))
    assert judge(differences[::-1], 8, test="e_process").verdict == "undecided"
    prior = Prior(30.0, 0.01)
    assert judge(differences[:3], 8, test="e_process", prior=prior).verdict == "better"
    assert not judge(differences[:2], 8, test="e_process", prior=prior).decided


@pytest.mark.parametrize("test", ["sign_flip", "t"])
def test_order_does_not_matter_where_only_the_last_pair_counts(test: Test) -> None:
    rng = random.Random(3)
    for _ in range(100):
        differences = [rng.choice((0.1, 0.2, 0.3, -0.1, -0.7)) * rng.choice((1.0, 1.0, 1e-3)) for _ in range(8)]
        shuffled = rng.sample(differences, 8)
        assert judge(shuffled, 8, test=test, region=0.3) == judge(differences, 8, test=test, region=0.3)


def test_what_is_refused() -> None:
    for wrong in (math.nan, math.inf):
        for test in TESTS:
            with pytest.raises(ValueError, match="must be finite"):
                judge([1.0, wrong], 8, test=test)
    with pytest.raises(ValueError, match="9 differences with num_max=8"):
        judge([1.0] * 9, 8)
    with pytest.raises(ValueError, match="num_max=0"):
        judge([], 0)
    with pytest.raises(ValueError, match="num_max=21: sign flips take at most 20"):
        judge([], 21)
    with pytest.raises(ValueError, match=r"alpha=1.0"):
        judge([], 8, alpha=1.0)
    with pytest.raises(ValueError, match=r"region=-1.0"):
        judge([], 8, region=-1.0)


# --- futility


@settings(deadline=None)
@given(DIFFERENCES, st.integers(1, 4), st.sampled_from([0.02, 0.05, 0.2, 0.4]))
def test_futility_is_exactly_that_no_completion_claims(seen: list[float], left: int, alpha: float) -> None:
    num_max = len(seen) + left
    size = 1e3 * (1 + max(map(abs, seen), default=0.0))
    steps = (-3 * size, -size, -1.0, -1e-3, 0.0, 0.5, 2.0, size, 4 * size)
    rest = product(steps, repeat=left) if left <= 2 else product((-3 * size, -size, -0.5, size, 4 * size), repeat=left)
    claims = any(judge([*seen, *more], num_max, alpha=alpha).verdict != "undecided" for more in rest)
    assert judge(seen, num_max, alpha=alpha).decided == (not claims)


@pytest.mark.parametrize("seed", range(6))
def test_futility_waits_for_an_equivalence_that_is_possible(seed: int) -> None:
    rng, quantile = np.random.default_rng(seed), stats.t.isf(ALPHA / 2, NUM_MAX - 1)
    shift = (0.0, 0.1, 0.3)[seed % 3]
    seen = next(
        x for x in (rng.normal(size=6) + shift for _ in range(1000)) if judge(x.tolist(), NUM_MAX).decided
    ).tolist()

    def reach(rest: Array) -> float:
        d = np.array([*seen, *rest])
        return float(abs(d.mean()) + quantile * d.std(ddof=1) / math.sqrt(NUM_MAX))

    starts = [np.full(2, v) for v in (-3.0, -1.0, 0.0, 1.0, 3.0)] + list(rng.normal(size=(5, 2)))
    smallest = min(optimize.minimize(reach, start, method="Nelder-Mead", tol=1e-10).fun for start in starts)
    assert judge(seen, NUM_MAX, region=smallest * (1 - 1e-6)).decided
    assert not judge(seen, NUM_MAX, region=smallest * (1 + 1e-6)).decided


# --- false claims


def limit(rate: float, num_runs: int = NUM_RUNS) -> float:
    """A nominal rate and two standard errors of its estimate."""
    return rate + 2 * math.sqrt(rate * (1 - rate) / num_runs)


def draw(kind: str, rng: np.random.Generator, num_runs: int) -> Array:
    """Differences of two equal candidates, (runs, pairs)."""
    shape = (2, num_runs, NUM_MAX)
    if kind == "bimodal":
        a, b = np.where(rng.random(shape) < 1 / 3, 1.0, 1.25) + 0.01 * rng.normal(size=shape)
    else:
        a, b = rng.normal(size=shape) if kind == "normal" else rng.standard_t(3, size=shape)
    return b - a


def claims_of(test: Test, d: Array, prior: Prior | None = None) -> NDArray[np.int64]:
    """`judge` without a region after every pair, in numpy: -1 better, 1 worse, 0 none; one a run."""
    if test == "e_process":
        return _e_claims(d, prior or Prior(0.0, 0.0))
    if test == "t":
        result = stats.ttest_1samp(d, 0.0, axis=1)
        return np.where(result.pvalue <= ALPHA, np.sign(result.statistic), 0.0).astype(np.int64)
    signs = np.array(list(product((-1.0, 1.0), repeat=d.shape[1]))).T
    sums, total, tie = np.abs(d) @ signs, d.sum(1, keepdims=True), 1e-12 * np.abs(d).sum(1, keepdims=True)
    better, worse = (sums <= total + tie).mean(1) <= ALPHA / 2, (sums <= -total + tie).mean(1) <= ALPHA / 2
    return worse.astype(np.int64) - better


def _e_claims(d: Array, prior: Prior) -> NDArray[np.int64]:
    verdicts = np.zeros(len(d), np.int64)
    for n in range(3, d.shape[1] + 1):
        mean, nu = d[:, :n].mean(1), prior.df + n - 1
        noise = (prior.df * prior.variance + (n - 1) * d[:, :n].var(1, ddof=1) / 2) / nu
        t2 = mean**2 * n / (2 * noise)
        e = ((1 + t2 / nu) / (1 + t2 / nu / (1 + n))) ** ((nu + 1) / 2) / math.sqrt(1 + n)
        verdicts = np.where((verdicts == 0) & (e >= 1 / ALPHA), np.sign(mean), verdicts).astype(np.int64)
    return verdicts


def stopped(differences: Sequence[float], test: Test, prior: Prior | None) -> Claim:
    """The first decided claim, looking after every pair from the second."""
    looks = (judge(differences[:n], NUM_MAX, test=test, prior=prior) for n in range(2, NUM_MAX + 1))
    return next(claim for claim in looks if claim.decided)


@pytest.mark.parametrize("prior", [None, Prior(6.0, 0.8)])
@pytest.mark.parametrize("test", TESTS)
def test_judge_is_what_is_simulated(test: Test, prior: Prior | None) -> None:
    rng = np.random.default_rng(8)
    effects = np.repeat([0.0, -1.0, 2.0], 170)[:, None]
    d = np.concatenate([draw(kind, rng, 170) for kind in ("normal", "t3", "bimodal")]) + effects
    names = {-1: "better", 0: "undecided", 1: "worse"}
    expected = [names[int(v)] for v in claims_of(test, d, prior)]
    assert len(set(expected)) == 3
    assert [stopped(row, test, prior).verdict for row in d.tolist()] == expected


@pytest.mark.parametrize("kind", ["normal", "t3", "bimodal"])
@pytest.mark.parametrize("test", TESTS)
def test_false_claims_are_no_more_than_nominal(test: Test, kind: str) -> None:
    verdicts = claims_of(test, draw(kind, np.random.default_rng(11), NUM_RUNS))
    assert 0 < np.mean(verdicts != 0) <= limit(ALPHA)
    assert max(np.mean(verdicts < 0), np.mean(verdicts > 0)) <= limit(ALPHA / 2)


@pytest.mark.parametrize("d0", [4.0, 20.0])
def test_an_e_process_with_a_prior_that_holds_on_average(d0: float) -> None:
    rng = np.random.default_rng(12)
    sigma = np.sqrt(d0 / rng.chisquare(d0, size=(NUM_RUNS, 1)))
    verdicts = claims_of("e_process", sigma * draw("normal", rng, NUM_RUNS), Prior(d0, 1.0))
    assert 0 < np.mean(verdicts != 0) <= limit(ALPHA)


def test_a_t_test_after_every_pair_has_far_too_many_false_wins() -> None:
    d = draw("normal", np.random.default_rng(13), NUM_RUNS)
    looks = [stats.ttest_1samp(d[:, :n], 0.0, axis=1) for n in range(2, NUM_MAX + 1)]
    wins = np.any([(look.pvalue <= ALPHA) & (look.statistic < 0) for look in looks], axis=0)
    assert 0.08 < wins.mean() < 0.10


def test_a_difference_at_the_edge_of_the_region_is_seldom_called_equivalent() -> None:
    rng, region = np.random.default_rng(14), 2.0
    d = draw("normal", rng, 2000) + region
    verdicts = [judge(row, NUM_MAX, test="t", region=region).verdict for row in d.tolist()]
    false = verdicts.count("equivalent") + verdicts.count("better")
    assert 0 < false <= 2000 * limit(ALPHA / 2, 2000)
    same = draw("normal", rng, 200).tolist()
    assert [judge(row, NUM_MAX, test="t", region=region).verdict for row in same].count("equivalent") > 100


# --- scores of bimodal candidates


def test_the_success_model_keeps_the_best_of_bimodal_candidates_more_often_than_the_median() -> None:
    rng, num_runs, k, lost_value = np.random.default_rng(15), 400, 5, 2.0
    kept = dict.fromkeys(("mean", "median", "minimum", "model"), 0)
    for _ in range(num_runs):
        p, good = rng.beta(1, 2, 30), 1 + 0.1 * rng.normal(size=30)
        best = int(np.argmin((1 - (1 - p) ** k) * good + (1 - p) ** k * lost_value))
        found = rng.random((30, 3)) < p[:, None]
        rows = (np.where(found, good[:, None], lost_value) + 0.02 * rng.normal(size=(30, 3))).tolist()
        values = [value for row in rows for value in row]
        split = otsu(values)
        assert split is not None
        low = fmean(v for v in values if v <= split.threshold)
        high = fmean(v for v in values if v > split.threshold)
        scores = {
            "mean": [fmean(row) for row in rows],
            "median": [median(row) for row in rows],
            "minimum": [min(row) for row in rows],
            "model": [best_of_k(row, 0, k, split.threshold, low, high) for row in rows],
        }
        for name, score in scores.items():
            kept[name] += sum(s < score[best] for s in score) < 10
    assert kept["model"] >= kept["median"] + 0.1 * num_runs
    assert kept["model"] >= kept["mean"] + 0.04 * num_runs
    assert kept["mean"] >= kept["median"] + 0.04 * num_runs
    assert kept["minimum"] >= kept["model"] - 0.02 * num_runs
