"""Claims that B is better or worse than A, from values paired by seed: standard library only.

What it is: three tests whose error is known although the pairs are looked at one by one, and a verdict that says when
it is final. Differences are d_i = b_i - a_i, lower is better, so a negative one speaks for B. What it is not: a rule
for promotions, which use no tests (`analysis.stats.scores`), nor a repeated t-test, which looks after every seed and
calls a false winner far more often than it says.

- ``sign_flip``: exact for any distribution that is symmetric about zero under the null, as differences of two equal
  candidates are. Read at ``num_max`` pairs; before that final only where no outcome of the rest can give a claim.
- ``t``: the paired t-test at ``num_max`` pairs; exact for normal differences.
- ``e_process``: may claim after any pair (anytime-valid, Ville's inequality); valid for normal differences.

False claims measured at alpha 0.05 on 200,000 runs of up to 8 pairs, looking after each pair from the second (standard
error at most 0.0005), where values of A and B are alike: normal | Student's t with 3 degrees of freedom | good one time
in three, else bad. Sign flips .048 | .048 | .046, the t-test .051 | .043 | .046, the e-process .007 | .005 | .003; a
t-test repeated after each pair .178 | .153 | .169. The e-process pays for early claims with power: where the means are
two standard deviations of one seed apart, it claims within 8 pairs in .52 of normal runs (.80 with a prior worth 20
degrees of freedom), sign flips in .91.

Sources: R. A. Fisher, The Design of Experiments (1935), section 21 (sign flips); H. Wang and A. Ramdas, Anytime-valid
t-tests and confidence sequences for Gaussian means with unknown variance (2023), arXiv 2310.03722; S. Holm, Scand. J.
Statist. 6 (1979), 65-70; X. Bouthillier et al., Accounting for variance in machine learning benchmarks (MLSys 2021).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal, NamedTuple

from analysis.stats.interval import Interval, mean_interval, proportion_interval
from analysis.stats.seeds import Prior, moderated
from analysis.stats.student import t_cdf, t_quantile

_Verdict = Literal["better", "worse", "equivalent", "undecided"]
"""Of B against A."""
Test = Literal["sign_flip", "t", "e_process"]

MAX_SIGN_FLIP_PAIRS = 20

_FIRST_LOOK = 3  # pairs before which the e-process claims nothing: a variance from two is hardly one
_TIE = 1e-12  # of the sum of |d|: sums of sign patterns closer than that are equal


@dataclass(frozen=True)
class Claim:
    """What the pairs so far say about B against A.

    Attributes:
        verdict: ``undecided`` until a claim is made; final once ``decided``.
        num_pairs: pairs seen.
        num_max: pairs at most, fixed before the first.
        difference: mean of b - a in the metric's units with the paired t interval at 1 - alpha, whose coverage is that
            of one look; negative: B better. NaN without pairs, NaN ends below two.
        probability_better: share of pairs in which B is better, ties half, with Wilson's interval at 1 - alpha; NaN
            without pairs. At 0.75 and more a difference is worth having (Bouthillier et al. 2021).
        p_value: two-sided; of the e-process min(1, 1 / E).
        e_value: of the e-process, at the pair where it stopped or the last; None for other tests.
        decided: whether no further pair can change the verdict.
        reason: why, in one sentence.
    """

    verdict: _Verdict
    num_pairs: int
    num_max: int
    difference: Interval
    probability_better: Interval
    p_value: float
    e_value: float | None
    decided: bool
    reason: str


class _Outcome(NamedTuple):
    verdict: _Verdict
    decided: bool
    reason: str
    p_value: float
    e_value: float | None = None


def sign_flip_p(differences: Sequence[float]) -> float:
    """Exact one-sided p-value for a mean below zero: the share of all sign patterns with a sum as low as observed.

    Sums within 1e-12 of the sum of |d| count as equal, so that ties survive rounding. 1.0 for no differences, or for
    zeros alone. The 2^n patterns are counted over two halves: O(n 2^(n/2)), for 20 differences at most.
    """
    _check(differences)
    if len(differences) > MAX_SIGN_FLIP_PAIRS:
        raise ValueError(f"{len(differences)} differences: sign flips take at most {MAX_SIGN_FLIP_PAIRS}; use test='t'")
    sizes = sorted(map(abs, differences))
    bound = math.fsum(differences) + _TIE * math.fsum(sizes)
    half = len(sizes) // 2
    left, right = sorted(_pattern_sums(sizes[:half])), _pattern_sums(sizes[half:])
    return sum(bisect_right(left, bound - other) for other in right) / (1 << len(sizes))


def _pattern_sums(sizes: Sequence[float]) -> list[float]:
    sums = [0.0]
    for size in sizes:
        sums = [s + sign for s in sums for sign in (-size, size)]
    return sums


def e_value(differences: Sequence[float], prior: Prior | None = None, c: float = 1.0) -> float:
    """The t-test's e-value at these pairs against a mean of zero, two-sided (Wang & Ramdas 2023, Gaussian mixture).

    E = (1 + n c^2)^(-1/2) [(1 + t^2 / nu) / (1 + t^2 / (nu (1 + n c^2)))]^((nu + 1) / 2), with t = mean(d) / (sqrt(2) s
    / sqrt(n)), nu = d0 + n - 1, and s^2 = var(d) / 2 the variance of one seed, moderated by the prior. At most (1 + n
    c^2)^(nu / 2), which is what differences without spread get; +inf only where nu is (or on overflow). 1.0 for fewer
    than two differences: one pair tells no variance.

    Args:
        differences: b - a by pair.
        prior: of one seed's variance, from other candidates. The error bound then holds on average over that prior.
        c: standard deviation of the mixture over the effect, in units of the differences' standard deviation.
    """
    _check(differences)
    n = len(differences)
    if n < 2:
        return 1.0
    mean, spread = fmean(differences), variance(differences)
    nu = n - 1.0 + (prior.df if prior else 0.0)
    noise = 2.0 * (moderated(prior, spread / 2.0, n - 1.0) if prior else spread / 2.0) / n
    t2 = mean * mean / noise if noise > 0.0 else (math.inf if mean else 0.0)
    r = 1.0 + n * c * c
    if math.isinf(nu):
        log_e = 0.5 * t2 * (1.0 - 1.0 / r)
    elif math.isinf(t2):
        log_e = 0.5 * (nu + 1.0) * math.log(r)
    else:
        log_e = 0.5 * (nu + 1.0) * (math.log1p(t2 / nu) - math.log1p(t2 / (nu * r)))
    log_e -= 0.5 * math.log(r)
    return math.exp(log_e) if log_e < 709.0 else math.inf


def can_decide(num_max: int, test: Test, alpha: float = 0.05, prior_df: float = 0.0) -> bool:
    """Whether any ``num_max`` pairs at all can give the claim better or worse.

    At alpha 0.05 sign flips need 6 pairs (2^-5 is above 2.5% a side) and the e-process 5 (3 or 4 with a prior of
    ``prior_df`` degrees of freedom).
    """
    if test == "sign_flip":
        return 1 <= num_max <= MAX_SIGN_FLIP_PAIRS and math.ldexp(1.0, -num_max) <= alpha / 2.0
    if test == "t":
        return num_max >= 2
    return num_max >= _FIRST_LOOK and 0.5 * (prior_df + num_max - 1) * math.log1p(num_max) >= -math.log(alpha)


def judge(
    differences: Sequence[float],
    num_max: int,
    *,
    test: Test = "sign_flip",
    alpha: float = 0.05,
    region: float = 0.0,
    prior: Prior | None = None,
) -> Claim:
    """What the pairs so far say about B against A, and whether that is final.

    It may be called after every pair; stopping at the first ``decided`` keeps the rate of false claims at alpha. The
    error alpha is shared by both sides: a true difference of zero gives better or worse with at most alpha, one outside
    the region of practical equivalence gives ``equivalent`` with at most alpha / 2 (two one-sided tests, that is the 1
    - alpha interval inside the region) or the wrong side with at most alpha / 2. An interval inside the region is
    ``equivalent`` even where the difference is significant; the interval is Student's t with every test, so this
    verdict assumes differences that are nearly normal, and it is given at ``num_max`` pairs only.

    Args:
        differences: b - a by pair, in the order in which they came (only the e-process minds). Replace failed seeds
            before.
        num_max: pairs at most; fixed before the first.
        alpha: two-sided rate of false claims.
        region: half-width of the region of practical equivalence in the metric's units; 0 for none.
        prior: of one seed's variance; the e-process uses it, the other tests do not.
    """
    _check(differences)
    _check_arguments(len(differences), num_max, test, alpha, region)
    n = len(differences)
    if test == "e_process":
        outcome = _e_process(differences, num_max, alpha, region, prior)
    else:
        outcome = _fixed(differences, num_max, test, alpha, region)
    wins = sum((d < 0.0) + 0.5 * (d == 0.0) for d in differences)
    return Claim(
        num_pairs=n,
        num_max=num_max,
        difference=mean_interval(differences, 1.0 - alpha),
        probability_better=proportion_interval(wins, n, 1.0 - alpha),
        **outcome._asdict(),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given: comparing each with alpha keeps the rate of any false claim at alpha."""
    if not all(0.0 <= p <= 1.0 for p in p_values):
        raise ValueError(f"p_values={list(p_values)!r}: each takes 0 to 1")
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def _fixed(differences: Sequence[float], num_max: int, test: Test, alpha: float, region: float) -> _Outcome:
    """The tests that are read once, at num_max pairs."""
    n, name = len(differences), "sign-flip" if test == "sign_flip" else "paired t"
    below, above = _one_sided(differences, test)
    p_value = min(1.0, 2.0 * min(below, above))
    if n < num_max:
        if test == "sign_flip" and _is_futile(differences, min(below, above), num_max, alpha, region):
            reason = f"after {n} of {num_max} pairs no outcome of the rest can give a claim at alpha = {alpha:g}"
            return _Outcome("undecided", True, reason, p_value)
        return _Outcome("undecided", False, f"{n} of {num_max} pairs: the {name} test is read at the last", p_value)
    if _is_inside(differences, alpha, region):
        return _Outcome("equivalent", True, _inside(n, alpha, region), p_value)
    if p_value <= alpha:
        verdict: _Verdict = "better" if below < above else "worse"
        return _Outcome(verdict, True, f"{name} p = {p_value:.3g} <= {alpha:g} at {n} pairs", p_value)
    if not can_decide(num_max, test, alpha):
        return _Outcome("undecided", True, f"a {name} test of {n} pairs cannot reach alpha = {alpha:g}", p_value)
    return _Outcome("undecided", True, f"{name} p = {p_value:.3g} > {alpha:g} at {n} pairs", p_value)


def _one_sided(differences: Sequence[float], test: Test) -> tuple[float, float]:
    """P-values for a mean below and above zero."""
    if test == "sign_flip":
        return sign_flip_p(differences), sign_flip_p([-d for d in differences])
    n = len(differences)
    if n < 2:
        return 1.0, 1.0
    mean, error = math.fsum(differences) / n, math.sqrt(variance(differences) / n)
    t = mean / error if error else (math.copysign(math.inf, mean) if mean else 0.0)
    return t_cdf(t, n - 1.0), t_cdf(-t, n - 1.0)


def _is_futile(differences: Sequence[float], smallest: float, num_max: int, alpha: float, region: float) -> bool:
    """Whether sign flips at num_max can only be undecided, given these first pairs.

    The patterns that leave the signs of the m remaining pairs as they will be are 2^-m of all, and among them the sum
    is as low as observed exactly where that of the first pairs is: p >= 2^-m p_n, with equality where the rest is huge.
    """
    left = num_max - len(differences)
    if smallest * math.ldexp(1.0, -left) <= alpha / 2.0:
        return False
    return region == 0.0 or _narrowest(differences, num_max, alpha) > region


def _narrowest(differences: Sequence[float], num_max: int, alpha: float) -> float:
    """The smallest region that the interval at num_max can still lie in, over all completions.

    For a given sum the spread is least where all m remaining values are one and the same, w nearer to zero than the
    mean x; the interval's far end is then |x| - w m / N + q sqrt((SS + w^2 n m / N) / (N (N - 1))), convex in w.
    """
    n, total = len(differences), num_max
    if n < 2 or total < 2:
        return 0.0
    left = total - n
    mean = abs(math.fsum(differences) / n)
    scale = t_quantile(1.0 - alpha / 2.0, total - 1.0) ** 2 / (total * (total - 1.0))
    fixed, slope, curve = scale * (n - 1.0) * variance(differences), left / total, scale * n * left / total
    w = mean / slope
    if curve > slope**2:
        w = min(w, slope * math.sqrt(fixed / (curve * (curve - slope**2))))
    return mean - slope * w + math.sqrt(fixed + curve * w * w)


def _e_process(
    differences: Sequence[float], num_max: int, alpha: float, region: float, prior: Prior | None
) -> _Outcome:
    """The first prefix with E >= 1 / alpha decides, whatever comes after it."""
    e, n = 1.0, len(differences)
    for count in range(min(_FIRST_LOOK, n), n + 1):
        seen = differences[:count]
        e = e_value(seen, prior)
        if count >= _FIRST_LOOK and e >= 1.0 / alpha and not _is_inside(seen, alpha, region):
            verdict: _Verdict = "better" if math.fsum(seen) < 0.0 else "worse"
            return _Outcome(verdict, True, f"E = {e:.3g} >= {1.0 / alpha:g} at {count} pairs", min(1.0, 1.0 / e), e)
    p_value = min(1.0, 1.0 / e)
    if n < num_max:
        reason = f"E = {e:.3g} after {n} of {num_max} pairs; a claim takes {1.0 / alpha:g}"
        return _Outcome("undecided", False, reason, p_value, e)
    if _is_inside(differences, alpha, region):
        return _Outcome("equivalent", True, _inside(n, alpha, region), p_value, e)
    return _Outcome("undecided", True, f"E = {e:.3g} at all {n} pairs; a claim takes {1.0 / alpha:g}", p_value, e)


def _is_inside(differences: Sequence[float], alpha: float, region: float) -> bool:
    _, low, high = mean_interval(differences, 1.0 - alpha)
    return region > 0.0 and -region <= low and high <= region


def _inside(n: int, alpha: float, region: float) -> str:
    return f"the {1.0 - alpha:.3g} interval of {n} pairs lies inside +-{region:g}"


def _check(differences: Sequence[float]) -> None:
    if not all(map(math.isfinite, differences)):
        raise ValueError(f"differences={list(differences)!r}: each must be finite; replace failed seeds before")


def _check_arguments(n: int, num_max: int, test: Test, alpha: float, region: float) -> None:
    if num_max < 1 or n > num_max:
        raise ValueError(f"{n} differences with num_max={num_max}: it is fixed before, at least 1, and not exceeded")
    if test == "sign_flip" and num_max > MAX_SIGN_FLIP_PAIRS:
        raise ValueError(f"num_max={num_max}: sign flips take at most {MAX_SIGN_FLIP_PAIRS} pairs; use test='t'")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha={alpha!r}: it takes a rate between 0 and 1")
    if not 0.0 <= region < math.inf:
        raise ValueError(f"region={region!r}: it takes a finite half-width, 0 for none")
