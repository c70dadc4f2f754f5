"""Scores over seeds against scipy, numpy, brute force and simulation."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, special, stats

from analysis.stats.best_of_k import best_of_k, expected_min, expected_min_interval, otsu, success_probability
from analysis.stats.interval import Interval, mean_interval, proportion_interval
from analysis.stats.seeds import Prior, fit_prior, moderated, two_way_fit
from analysis.stats.student import digamma, inverse_trigamma, t_cdf, t_quantile, trigamma

FINITE = st.floats(-1e3, 1e3)


def test_neither_numpy_nor_scipy_is_loaded() -> None:
    modules = "analysis.stats.claims, analysis.stats.scores, analysis.stats.bootstrap, analysis.stats.best_of_k"
    code = f"import sys, {modules}; print({{'numpy', 'scipy', 'torch'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- distributions


@pytest.mark.parametrize("x", [*np.geomspace(1e-6, 1e8, 60), 0.5, 1.0, 9.999, 10.0])
def test_digamma_and_trigamma_are_scipys(x: float) -> None:
    assert digamma(x) == pytest.approx(special.psi(x), rel=1e-13, abs=1e-13)
    assert trigamma(x) == pytest.approx(special.polygamma(1, x), rel=1e-13)


@pytest.mark.parametrize("y", np.geomspace(1e-9, 1e9, 60))
def test_inverse_trigamma_inverts(y: float) -> None:
    assert trigamma(inverse_trigamma(y)) == pytest.approx(y, rel=1e-9)


@pytest.mark.parametrize("function", [digamma, trigamma, inverse_trigamma])
def test_the_gamma_family_refuses_what_is_not_positive(function: Callable[[float], float]) -> None:
    for x in (-1.0, math.nan):
        with pytest.raises(ValueError, match="is not positive"):
            function(x)
    assert inverse_trigamma(0.0) == math.inf


DFS = [0.3, 1.0, 1.5, 2.0, 3.0, 7.3, 30.0, 199.0, 201.0, 1e4, 9.9e5, 1.1e6, 1e9]
TS = np.concatenate([-np.geomspace(1e-8, 1e5, 60), [0.0], np.geomspace(1e-8, 1e5, 60)])


def reference_cdf(t: np.ndarray, df: float) -> np.ndarray:
    """Scipy's, but for one degree of freedom, where it is wrong by 3e-9 in the tails: Cauchy's is an arctangent."""
    return np.arctan2(1.0, -t) / math.pi if df == 1.0 else stats.t.cdf(t, df)


@pytest.mark.parametrize("df", DFS)
def test_t_is_scipys(df: float) -> None:
    np.testing.assert_allclose([t_cdf(t, df) for t in TS], reference_cdf(TS, df), rtol=0.0, atol=1e-11)
    ps = np.concatenate([np.geomspace(1e-9, 0.499, 40), 1.0 - np.geomspace(1e-9, 0.499, 40)])
    quantiles = [t_quantile(p, df) for p in ps]
    np.testing.assert_allclose(quantiles, stats.t.ppf(ps, df), rtol=1e-9)


def test_t_at_its_ends() -> None:
    np.testing.assert_allclose([t_cdf(t, math.inf) for t in TS], stats.norm.cdf(TS), rtol=0.0, atol=1e-15)
    assert t_quantile(0.975, math.inf) == pytest.approx(1.959963984540054, rel=1e-14)
    for df in (0.5, 3.0, math.inf):
        assert (t_cdf(-math.inf, df), t_cdf(0.0, df), t_cdf(math.inf, df)) == (0.0, 0.5, 1.0)
        assert (t_quantile(0.0, df), t_quantile(0.5, df), t_quantile(1.0, df)) == (-math.inf, 0.0, math.inf)
    assert math.isnan(t_cdf(math.nan, 3.0))
    for df in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"df=.* is not positive"):
            t_cdf(1.0, df)
        with pytest.raises(ValueError, match=r"df=.* is not positive"):
            t_quantile(0.1, df)
    with pytest.raises(ValueError, match=r"p=1.5 is not a probability"):
        t_quantile(1.5, 3.0)


def test_an_interval_times_a_negative_factor_swaps_its_ends() -> None:
    assert Interval(1.0, 0.5, 3.0).times(2.0) == Interval(2.0, 1.0, 6.0)
    assert Interval(1.0, 0.5, 3.0).times(-2.0) == Interval(-2.0, -6.0, -1.0)
    assert Interval(1.0, 0.5, 3.0).half_width == 1.25
    assert all(map(math.isnan, Interval(1.0, math.nan, math.nan).times(-1.0)[1:]))


# --- moderated variances


def reference_prior(variances: np.ndarray, dfs: np.ndarray) -> tuple[float, float]:
    """Smyth's section 6.2 with scipy's functions and a bracketing solver."""
    e = np.log(variances) - special.psi(dfs / 2) + np.log(dfs / 2)
    excess = e.var(ddof=1) - special.polygamma(1, dfs / 2).mean()
    half = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-6, 1e9, xtol=1e-14, rtol=1e-14)
    return 2 * half, math.exp(e.mean() + special.psi(half) - math.log(half))


@pytest.mark.parametrize(("d0", "s0", "low", "high"), [(3.0, 5.0, 2.7, 3.3), (8.0, 0.01, 6.5, 10.0)])
def test_the_prior_is_recovered_from_scaled_f(d0: float, s0: float, low: float, high: float) -> None:
    rng = np.random.default_rng(5)
    dfs = rng.integers(1, 5, 20_000).astype(float)
    variances = s0 * rng.chisquare(dfs) / dfs * d0 / rng.chisquare(d0, len(dfs))
    prior = fit_prior(variances.tolist(), dfs.tolist())
    assert low < prior.df < high
    assert prior.variance == pytest.approx(s0, rel=0.05)
    assert prior == pytest.approx(reference_prior(variances, dfs), rel=1e-9)


def test_one_common_variance_gives_an_infinite_prior_and_the_pooled_variance() -> None:
    assert fit_prior([1.0, 1.1, 0.9], [2.0, 2.0, 4.0]) == Prior(math.inf, pytest.approx((2.0 + 2.2 + 3.6) / 8))


def test_zero_variances_are_left_out() -> None:
    variances = stats.f.rvs(3, 6, size=400, random_state=np.random.default_rng(0)).tolist()
    clean = fit_prior(variances, [3.0] * 400)
    assert math.isfinite(clean.df)
    assert fit_prior([0.0, 1e-30, *variances], [3.0] * 402) == clean
    assert fit_prior([0.0] * 900 + variances, [3.0] * 1300) == clean
    assert fit_prior([0.0, 2.0], [3.0, 3.0]) == Prior(0.0, 2.0)
    assert fit_prior([0.0] * 5, [2.0] * 5) == Prior(math.inf, 0.0)
    assert fit_prior([0.0], [2.0]) == Prior(0.0, 0.0)


def test_a_prior_from_too_few() -> None:
    for empty in (fit_prior([], []), fit_prior([math.nan, 3.0], [2.0, 0.0])):
        assert empty.df == 0.0
        assert math.isnan(empty.variance)
    assert fit_prior([2.5, math.nan], [3.0, 0.0]) == Prior(0.0, 2.5)
    with pytest.raises(ValueError, match="finite and not negative"):
        fit_prior([1.0, -1.0], [1.0, 1.0])


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.5, 9.0)), max_size=20), st.randoms(use_true_random=False))
def test_a_prior_does_not_depend_on_order(entries: list[tuple[float, float]], rng: random.Random) -> None:
    def fit(pairs: Sequence[tuple[float, float]]) -> Prior:
        return fit_prior([s for s, _ in pairs], [d for _, d in pairs])

    shuffled = rng.sample(entries, len(entries))
    assert repr(fit(shuffled)) == repr(fit(entries))


def test_moderation_is_the_weighted_mean_and_its_limits() -> None:
    assert moderated(Prior(4.0, 1.0), 2.0, 2.0) == pytest.approx(8.0 / 6.0)
    assert moderated(Prior(math.inf, 1.0), 2.0, 2.0) == 1.0
    assert moderated(Prior(0.0, math.nan), 2.0, 2.0) == 2.0
    assert moderated(Prior(4.0, 1.0), math.nan, 0.0) == 1.0
    assert math.isnan(moderated(Prior(0.0, math.nan), math.nan, 0.0))


# --- two-way fit


def check_against_lstsq(rows: Sequence[Mapping[int, float]], reference: Sequence[int]) -> None:
    """Scores, blocks, variances and degrees of freedom of one connected design by dense linear algebra."""
    seeds = sorted({seed for row in rows for seed in row})
    cells = [(c, seeds.index(seed), value) for c, row in enumerate(rows) for seed, value in row.items()]
    design = np.zeros((len(cells), len(rows) + len(seeds)))
    for i, (c, s, _) in enumerate(cells):
        design[i, c] = design[i, len(rows) + s] = 1.0
    values = np.array([value for _, _, value in cells])
    solved = np.linalg.lstsq(design, values, rcond=None)[0]
    mu, blocks = solved[: len(rows)], solved[len(rows) :]
    centre = np.mean([blocks[seeds.index(seed)] for seed in reference if seed in seeds] or blocks)
    own = design[:, : len(rows)].T
    rss = own @ (values - design @ solved) ** 2
    dfs = own @ (1.0 - np.diag(design @ np.linalg.pinv(design)))
    fit = two_way_fit(rows, reference)
    np.testing.assert_allclose(fit.scores, mu + centre, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose([fit.blocks[seed] for seed in seeds], blocks - centre, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fit.dfs, dfs, atol=1e-9)
    assert sum(fit.dfs) == pytest.approx(len(cells) - len(rows) - len(seeds) + 1, abs=1e-9)
    for variance, squares, df in zip(fit.variances, rss, dfs, strict=True):
        assert math.isnan(variance) if df < 1e-9 else variance == pytest.approx(squares / df, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("extra", [(), (0,), (0, 3, 4), (0, 1, 2, 3, 4, 5)])
def test_the_fit_is_least_squares(extra: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(extra))
    rows = [dict(enumerate(rng.normal(size=3).tolist())) for _ in range(6)]
    for i in extra:
        rows[i][9] = float(rng.normal())
    check_against_lstsq(rows, (0, 1, 2))
    check_against_lstsq(rows, (1, 9, 77))
    check_against_lstsq(rows, ())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.dictionaries(st.integers(1, 5), FINITE, min_size=1), min_size=1, max_size=7),
    st.lists(st.integers(0, 6), max_size=3, unique=True),
)
def test_any_design_that_a_common_seed_connects(rows: list[dict[int, float]], reference: list[int]) -> None:
    check_against_lstsq([{**row, 0: sum(row.values())} for row in rows], reference)


def test_a_balanced_score_is_the_mean_exactly() -> None:
    rng = np.random.default_rng(2)
    rows = [dict(enumerate((c + rng.normal(size=3)).tolist())) for c in range(50)]
    fit = two_way_fit(rows, (0, 1, 2))
    assert fit.scores == [math.fsum(row.values()) / 3 for row in rows]
    assert fit.dfs == pytest.approx([2.0 * 49 / 50] * 50)
    # One candidate's extra seed takes nothing from the others' scores, and is no evidence about the noise.
    more = two_way_fit([{**rows[0], 3: 1e6}, *rows[1:]], (0, 1, 2))
    assert more.scores[1:] == fit.scores[1:]
    assert more.scores[0] == pytest.approx(fit.scores[0], abs=1e-9)
    assert more.dfs[0] == pytest.approx(fit.dfs[0])


def test_a_hard_seed_does_not_count_against_those_that_had_it() -> None:
    rows = [{0: 1.0, 1: 2.0, 2: 5.0}, {0: 2.0, 1: 3.0, 2: 6.0}, {0: 0.9, 2: 4.9}, {2: 5.1}]
    fit = two_way_fit(rows, (0, 1, 2))
    assert [s - fit.scores[0] for s in fit.scores] == pytest.approx([0.0, 1.0, -0.1, 0.1])
    assert fit.variances[:3] == pytest.approx([0.0] * 3, abs=1e-20)
    assert math.isnan(fit.variances[3])
    assert fit.dfs[3] == 0.0


def test_degenerate_designs() -> None:
    assert two_way_fit([], (0, 1)) == ([], {}, [], [])
    alone = two_way_fit([{0: 1.0, 1: 3.0}], (0, 1))
    assert (alone.scores, alone.blocks, alone.dfs) == ([2.0], {0: -1.0, 1: 1.0}, [0.0])
    assert math.isnan(alone.variances[0])
    # Seeds that nobody shares are compared by plain means, group by group.
    apart = two_way_fit([{0: 1.0, 1: 3.0}, {0: 2.0, 1: 4.5}, {7: 1.0, 8: 2.0}, {9: 4.0}], (0, 1))
    assert apart.scores == [2.0, 3.25, 1.5, 4.0]
    assert apart.blocks == pytest.approx({0: -1.125, 1: 1.125, 7: -0.5, 8: 0.5, 9: 0.0})
    for row in ({}, {0: math.nan}, {0: 1.0, 1: math.inf}):
        with pytest.raises(ValueError, match=r"row 1 = .* one finite value or more"):
            two_way_fit([{0: 1.0}, row], (0,))


@settings(deadline=None)
@given(
    st.lists(st.dictionaries(st.integers(0, 6), FINITE, min_size=1), max_size=8),
    st.lists(st.integers(0, 6), max_size=3, unique=True),
    st.randoms(use_true_random=False),
)
def test_the_order_of_rows_and_seeds_changes_no_bit(
    rows: list[dict[int, float]], reference: list[int], rng: random.Random
) -> None:
    order = rng.sample(range(len(rows)), len(rows))
    shuffled = [dict(rng.sample(list(rows[i].items()), len(rows[i]))) for i in order]
    fit, again = two_way_fit(rows, reference), two_way_fit(shuffled, rng.sample(reference, len(reference)))
    assert again.blocks == fit.blocks
    assert again.scores == [fit.scores[i] for i in order]
    assert again.dfs == [fit.dfs[i] for i in order]
    assert repr(again.variances) == repr([fit.variances[i] for i in order])


# --- the best of k


@settings(deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=8), st.data())
def test_the_expected_minimum_is_the_mean_over_all_subsets(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    subsets = [min(subset) for subset in combinations(values, k)]
    assert expected_min(values, k) == pytest.approx(sum(subsets) / len(subsets), rel=1e-12, abs=1e-9)
    assert expected_min(sorted(values, reverse=True), k) == expected_min(values, k)


def test_the_expected_minimum_with_lost_seeds_and_without_enough() -> None:
    assert expected_min([1.0, math.inf, math.inf], 3) == 1.0
    assert expected_min([1.0, 2.0, math.inf], 2) == pytest.approx(4.0 / 3.0)
    assert expected_min([1.0, math.inf, math.inf], 2) == math.inf
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"k={k} of 3 values"):
            expected_min([1.0, 2.0, 3.0], k)
    with pytest.raises(ValueError, match="no NaN"):
        expected_min([1.0, math.nan], 1)


def test_the_interval_of_the_expected_minimum() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=12).tolist()
    whole = value, low, high = expected_min_interval(values, 3)
    assert min(values) <= low < value == expected_min(values, 3) < high
    assert expected_min_interval(sorted(values), 3) == whole
    assert expected_min_interval(values, 3, seed=1)[1:] != (low, high)
    narrow = expected_min_interval(values, 3, level=0.5)
    assert low < narrow.low < narrow.high < high
    assert expected_min_interval([2.0] * 5, 3) == pytest.approx((2.0, 2.0, 2.0))
    truth = integrate.quad(lambda x: 3 * x * stats.norm.pdf(x) * stats.norm.sf(x) ** 2, -10, 10)[0]
    hits = 0
    for _ in range(100):
        _, low, high = expected_min_interval(rng.normal(size=30).tolist(), 3, num=300)
        hits += low <= truth <= high
    assert hits >= 0.85 * 100  # of a nominal 95%: percentile intervals of small samples are too short


@pytest.mark.parametrize(("s", "f", "k"), [(0, 0, 1), (1, 2, 3), (0, 3, 5), (4, 0, 2), (2, 7, 8)])
def test_the_probability_of_a_success_is_that_of_a_beta_binomial(s: int, f: int, k: int) -> None:
    posterior = stats.beta(0.5 + s, 0.5 + f)
    assert success_probability(s, f, k) == pytest.approx(1.0 - posterior.expect(lambda p: (1 - p) ** k), abs=1e-7)
    log = special.betaln(2.0 + s, 3.0 + f + k) - special.betaln(2.0 + s, 3.0 + f)
    assert success_probability(s, f, k, a=2.0, b=3.0) == pytest.approx(-math.expm1(log), rel=1e-12)


def test_otsu_finds_the_gap() -> None:
    split = otsu([1.0, 3.2, 1.1, 3.0, 0.9])
    assert split is not None
    assert split.threshold == pytest.approx((1.1 + 3.0) / 2)
    assert 0.99 < split.separation <= 1.0
    assert otsu([0.0, 0.0, 1.0, 1.0]) == (0.5, 1.0)
    assert otsu([1.0, 2.0, 3.0]) is None
    assert otsu([2.0] * 9) is None
    near = otsu([1.0, 1.0, math.nextafter(1.0, 2.0), math.nextafter(1.0, 2.0)])
    assert near == (1.0, 1.0)
    with pytest.raises(ValueError, match="finite"):
        otsu([1.0, 2.0, 3.0, math.inf])


@settings(deadline=None)
@given(st.lists(st.integers(-20, 20).map(float), min_size=4, max_size=20), st.sampled_from([1.0, 1e-170, 1e150]))
def test_otsu_is_the_best_of_all_cuts(values: list[float], scale: float) -> None:
    split = otsu([scale * v for v in values])
    if len(set(values)) == 1:
        assert split is None
        return
    assert split is not None
    x = np.array(values)
    cuts = np.unique(x)[:-1]
    shares = [(x <= c).mean() * (x > c).mean() * (x[x <= c].mean() - x[x > c].mean()) ** 2 / x.var() for c in cuts]
    assert split.separation == pytest.approx(max(shares))
    below = x * scale <= split.threshold
    chosen = below.mean() * (~below).mean() * (x[below].mean() - x[~below].mean()) ** 2 / x.var()
    assert chosen == pytest.approx(max(shares))
    assert split.threshold == pytest.approx(scale * (x[below].max() + x[~below].min()) / 2, abs=1e-12 * scale)


def test_the_score_of_the_best_of_k() -> None:
    p = success_probability(1, 3, 2)
    assert best_of_k([1.0, 3.0, 4.0], 1, 2, 1.5, 0.9, 5.0) == pytest.approx(p * 1.0 + (1 - p) * 5.0)
    p = success_probability(0, 2, 2)
    assert best_of_k([3.0], 1, 2, 1.5, 0.9, 5.0) == pytest.approx(p * 0.9 + (1 - p) * 5.0)
    assert best_of_k([1.5], 0, 1, 1.5, 0.9, 5.0) == pytest.approx(0.75 * 1.5 + 0.25 * 5.0)
    with pytest.raises(ValueError, match="lost"):
        best_of_k([math.nan], 0, 1, 1.5, 0.9, 5.0)


@pytest.mark.parametrize(("s", "n"), [(0, 5), (2, 5), (5, 5), (1, 30)])
def test_the_proportions_interval_is_wilsons(s: int, n: int) -> None:
    expected = stats.binomtest(s, n).proportion_ci(0.9, method="wilson")
    assert proportion_interval(s, n, 0.9) == pytest.approx((s / n, expected.low, expected.high), abs=1e-12)


def test_a_proportion_of_nothing_and_of_halves() -> None:
    assert proportion_interval(0, 0) == pytest.approx((math.nan, 0.0, 1.0), nan_ok=True)
    share, low, high = proportion_interval(2.5, 5)
    assert share == 0.5
    assert low + high == pytest.approx(1.0)
    with pytest.raises(ValueError, match="successes=6 of n=5"):
        proportion_interval(6, 5)


@pytest.mark.parametrize("values", [(1.0, 3.0), (0.1, 0.2, 0.4), (5.0, 5.0, 5.0, 9.0, -3.0)])
def test_the_interval_of_a_mean_is_scipys(values: tuple[float, ...]) -> None:
    error = stats.sem(values)
    expected = stats.t.interval(0.9, len(values) - 1, loc=np.mean(values), scale=error)
    assert mean_interval(values, 0.9) == pytest.approx((np.mean(values), *expected))


def test_the_interval_of_a_mean_of_one_of_none_and_of_what_is_not_finite() -> None:
    assert mean_interval([2.0]) == pytest.approx((2.0, math.nan, math.nan), nan_ok=True)
    assert all(map(math.isnan, mean_interval([])))
    assert all(map(math.isnan, mean_interval([1.0, math.nan])))
