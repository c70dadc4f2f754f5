"""What readings along a run say of its end: a Markov chain over levels, learnt from candidates that went further.

A level is a step at which candidates are read. At level l the means of configs over seeds have mean m_l and variance
S_l; one seed adds noise of variance E_l; and between two levels

    mean at l + 1  =  m_(l+1) + b_l (mean at l - m_l) + drift,    var drift = Q_l,    S_(l+1) = b_l^2 S_l + Q_l.

So what is known of the end after n seeds at level l is one normal distribution, `Chain.estimate`, and how much a
reading that is still to come would tell is `Chain.explained`. Slopes and variances are estimated where candidates have
been read at both levels, and shrunk towards priors that are worth a few candidates. Lower is better. Sums are correctly
rounded, so that no result depends on the order of the input. Pure functions of numbers, standard library only.

What it is not: a model of the shape of curves. Only ranks and scales at the levels count.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from analysis.stats.student import digamma, trigamma

Readings = Sequence[Mapping[int, float]]
"""Of one candidate, for each level seed -> its best value up to there; empty where it was not read."""

_CAP = 0.6
"""Quantile of first readings above which values are alike: the choice is among good ones, and bad ones have a tail."""
_SEED_SHARE, _SEED_SHARE_DF = 0.35, 3.0
"""Prior share of seeds in the variance at the first level, and the degrees of freedom that it is worth."""
_SEED_DECAY, _SEED_DF = 0.9, 1.5
"""Seed noise falls by this per e-fold of steps, a priori; and what that is worth."""
_FORGETS, _SHRINKS, _PAIRS = 0.35, 0.25, 3.0
"""A priori the correlation of configs' means and their spread fall so per e-fold of steps; worth so many candidates."""
_FORGETS_AT_LEAST = 0.2
"""However well ranks held so far, the squared correlation with the end falls by this per e-fold of steps."""
_LOWEST = 2.0
"""A reading more standard deviations below the mean of its level counts as that: early outliers extrapolate badly."""


class Estimate(NamedTuple):
    """What is known of a candidate's mean over seeds at the last level: a normal's mean and variance."""

    mean: float
    variance: float


@dataclass(frozen=True)
class Chain:
    """The chain as it was learnt; see the module. Tuples have an entry a level.

    Attributes:
        cap: values above it count as this.
        means: m_l.
        between: S_l, the variance of configs' means.
        noise: E_l, the variance of one seed around its config's mean.
        to_end: slope of the mean at the last level on that at level l.
        shifts: seed -> how much worse than the first seed it is for all candidates.
    """

    cap: float
    means: tuple[float, ...]
    between: tuple[float, ...]
    noise: tuple[float, ...]
    to_end: tuple[float, ...]
    shifts: tuple[Mapping[int, float], ...]

    @property
    def of_a_draw(self) -> Estimate:
        """What is known of a config that was not read yet."""
        return Estimate(self.means[-1], self.between[-1])

    def explained(self, level: int, num_seeds: int) -> float:
        """Variance of the mean at the last level that readings of ``num_seeds`` seeds at ``level`` explain."""
        return self.to_end[level] ** 2 * self.between[level] * self._weight(level, num_seeds)

    def estimate(self, level: int, values: Mapping[int, float | None]) -> Estimate:
        """What a candidate's seeds at ``level`` say of its end; a lost seed (None) counts as the cap."""
        shifts = self.shifts[level]
        read = [self.cap if v is None else min(v - shifts.get(seed, 0.0), self.cap) for seed, v in values.items()]
        last = len(self.means) - 1
        spread = math.sqrt(self.between[level] + self.noise[level])
        mean = fmean(read) if level == last else max(fmean(read), self.means[level] - _LOWEST * spread)
        moved = self.to_end[level] * self._weight(level, len(read)) * (mean - self.means[level])
        return Estimate(self.means[-1] + moved, self.between[-1] - self.explained(level, len(read)))

    def _weight(self, level: int, num_seeds: int) -> float:
        return self.between[level] / (self.between[level] + self.noise[level] / num_seeds)


def fit_chain(steps: Sequence[int], candidates: Iterable[Readings], first_seed: int) -> Chain | None:
    """The chain over levels at ``steps``; None while fewer than two candidates were read at the first level.

    Args:
        steps: of the levels, increasing.
        candidates: what was read of each, finite values only.
        first_seed: the seed that all others are compared with.
    """
    known = [candidate for candidate in candidates if candidate[0]]
    if len(known) < 2:
        return None
    cap = _quantile([fmean(candidate[0].values()) for candidate in known], _CAP)
    rows = [[{seed: min(v, cap) for seed, v in at.items()} for at in candidate] for candidate in known]
    shifts = tuple(_shifts([row[level] for row in rows], first_seed) for level in range(len(steps)))
    for row in rows:
        for at, shift in zip(row, shifts, strict=True):
            at.update({seed: value - shift.get(seed, 0.0) for seed, value in at.items()})
    return _fit(steps, rows, cap, shifts)


def log_expected_gain(behind: float, sd: float) -> float:
    """Logarithm of E[max(0, sd Z - behind)] for a standard normal Z: the gain of finding out, where one is ``behind``.

    With h(u) = phi(u) - u (1 - Phi(u)) it is log(sd h(behind / sd)), Mockus 1978; -inf for sd = 0.
    """
    if sd <= 0.0:
        return -math.inf
    u = behind / sd
    log_density = -0.5 * u * u - 0.5 * math.log(2 * math.pi)
    if u > 30.0:  # 1 - Phi(u) = phi(u) / u (1 - 1/u^2 + ...)
        return math.log(sd) + log_density - 2 * math.log(u)
    return math.log(sd * (math.exp(log_density) - 0.5 * u * math.erfc(u / math.sqrt(2))))


def _fit(steps: Sequence[int], rows: Sequence[Readings], cap: float, shifts: tuple[Mapping[int, float], ...]) -> Chain:
    within = [_within((row[level] for row in rows), len(shifts[level])) for level in range(len(steps))]
    first = [fmean(row[0].values()) for row in rows]
    mean = fmean(first)
    total = max(math.fsum((x - mean) ** 2 for x in first) / (len(first) - 1), (1e-9 * (1e-9 + abs(mean))) ** 2)
    squares, df = within[0]
    noise = [(_SEED_SHARE_DF * _SEED_SHARE * total + squares) / (_SEED_SHARE_DF + df)]
    means, between, slopes = [mean], [max(total - noise[0], 0.25 * total)], list[float]()
    for level in range(1, len(steps)):
        folds = math.log(steps[level] / steps[level - 1])
        prior = noise[-1] * math.exp(-_SEED_DECAY * folds)
        noise.append(_between_prior(prior, _SEED_DF, *within[level]))
        pairs = _pairs(rows, level)
        slope, drift = _step(pairs, folds, between[-1], noise[-2], noise[-1])
        if pairs:
            x, y = fmean(pair.before for pair in pairs), fmean(pair.after for pair in pairs)
            means.append(y + slope * (means[-1] - x))
        else:
            means.append(means[-1])
        between.append(slope * slope * between[-1] + drift)
        slopes.append(slope)
    return Chain(cap, tuple(means), tuple(between), tuple(noise), _to_end(steps, slopes, between), shifts)


class _Pair(NamedTuple):
    """A candidate's means over the seeds that were read at a level and at the one before."""

    before: float
    after: float
    num_seeds: int


def _pairs(rows: Sequence[Readings], level: int) -> list[_Pair]:
    pairs = []
    for row in rows:
        before, after = row[level - 1], row[level]
        both = before.keys() & after.keys()
        if both:
            pairs.append(_Pair(fmean(before[s] for s in both), fmean(after[s] for s in both), len(both)))
    return pairs


def _step(
    pairs: Sequence[_Pair], folds: float, between: float, noise_before: float, noise_after: float
) -> tuple[float, float]:
    """Slope and drift from a level to the next: a regression free of the noise in both, shrunk towards the prior.

    Noise explains no more than 0.7 of what is seen, or a small sample would leave nothing.
    """
    ratio = math.exp(-_SHRINKS * folds)
    prior_slope = ratio * math.exp(-_FORGETS * folds)
    prior_drift = ratio * ratio * between * (1 - math.exp(-2 * _FORGETS * folds))
    if not pairs:
        return prior_slope, prior_drift
    x, y = fmean(p.before for p in pairs), fmean(p.after for p in pairs)
    sxx = math.fsum((p.before - x) ** 2 for p in pairs)
    sxy = math.fsum((p.before - x) * (p.after - y) for p in pairs)
    df = len(pairs) - 1
    per_pair = fmean(1 / p.num_seeds for p in pairs)
    true_sxx = max(sxx - df * noise_before * per_pair, 0.3 * sxx)
    weight = _PAIRS * between
    slope = max((weight * prior_slope + sxy) / (weight + true_sxx), 0.05 * prior_slope)
    rest = math.fsum((p.after - y - slope * (p.before - x)) ** 2 for p in pairs)
    drift = max(rest - df * noise_after * per_pair, 0.3 * rest)
    return slope, _between_prior(prior_drift, _PAIRS, drift, df)


def _to_end(steps: Sequence[int], slopes: Sequence[float], between: Sequence[float]) -> tuple[float, ...]:
    """Of each level the slope of the mean at the last level on its own."""
    found, slope = [1.0], 1.0
    for level in reversed(range(len(slopes))):
        slope *= slopes[level]
        most = math.exp(-_FORGETS_AT_LEAST * math.log(steps[-1] / steps[level]))
        agreement = max(min(slope * slope * between[level] / between[-1], most), 0.02)
        found.append(math.sqrt(agreement * between[-1] / between[level]))
    return tuple(reversed(found))


def _shifts(at: Sequence[Mapping[int, float]], first_seed: int) -> dict[int, float]:
    """Seed -> how much worse than the first it is, over the candidates that were read with both.

    Not shrunk: what only one candidate has shown of a seed is the seed's, and counts neither for nor against it.
    """
    gaps = defaultdict[int, list[float]](list)
    for values in at:
        if first_seed in values:
            for seed, value in values.items():
                if seed != first_seed:
                    gaps[seed].append(value - values[first_seed])
    return {seed: fmean(gap) for seed, gap in gaps.items()}


def _within(at: Iterable[Mapping[int, float]], num_shifts: int) -> tuple[float, int]:
    """Sum of squares around the candidates' own means, and its degrees of freedom; the shifts have taken some."""
    squares, df = list[float](), -num_shifts
    for values in at:
        if len(values) > 1:
            mean = fmean(values.values())
            squares += [(value - mean) ** 2 for value in values.values()]
            df += len(values) - 1
    return math.fsum(squares), max(df, 0)


def _between_prior(prior: float, weight: float, squares: float, df: int) -> float:
    """A variance between its prior, worth ``weight`` degrees of freedom, and ``squares / df``.

    In logarithms, each weighed by its precision and freed of its bias (Smyth 2004, section 6.2): so a prior that is far
    off soon lets go, and a small sample whose squares are tiny by chance does not rule.
    """
    if df < 1:
        return prior
    seen = math.log(max(squares / df, 1e-5 * prior)) - digamma(df / 2) + math.log(df / 2)
    own, other = 1 / trigamma(weight / 2), 1 / trigamma(df / 2)
    return math.exp((own * math.log(prior) + other * seen) / (own + other))


def _quantile(values: Sequence[float], share: float) -> float:
    """Linear between neighbours."""
    ranked = sorted(values)
    place = share * (len(ranked) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (place - low) * (ranked[high] - ranked[low])
