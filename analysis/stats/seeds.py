"""What many candidates' seeds say together: variances moderated over candidates, and seeds as blocks that they share.

Pure functions of numbers, standard library only. Sums over candidates are correctly rounded (`math.fsum`), so that no
result depends on the order of its input.

Source: G. K. Smyth, Linear models and empirical Bayes methods, Stat. Appl. Genet. Mol. Biol. 3 (2004), 3.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from analysis.stats.student import digamma, inverse_trigamma, trigamma

_ROUNDING = 1e-15  # of the largest variance: what is below is no variance
_NO_DF = 1e-9  # degrees of freedom that are rounding, not information


class Prior(NamedTuple):
    """What the variances of many candidates say about one more: a scaled inverse chi-square.

    Attributes:
        df: d0, how many degrees of freedom the prior is worth; 0 nothing, inf all candidates share one variance.
        variance: s0 squared, in squared units of the metric; NaN where nothing is known.
    """

    df: float
    variance: float


def fit_prior(variances: Sequence[float], dfs: Sequence[float]) -> Prior:
    """Fit the prior by the moments of log variances (Smyth 2004, section 6.2).

    Entries without degrees of freedom or with a NaN variance are left out, and so are variances of zero, or below 1e-15
    of the largest, which is rounding. (limma raises them to 1e-5 of the median instead; in a simulated set two such
    among 400 took d0 from 12 to 3.) Where the log variances spread no more than sampling explains, d0 is inf and s0
    squared the pooled variance.

    Returns:
        The prior; ``Prior(0.0, nan)`` for no usable entry, ``Prior(0.0, s)`` for a single one (nothing to borrow from),
        ``Prior(inf, 0.0)`` if all variances are zero.
    """
    usable = [(s, d) for s, d in zip(variances, dfs, strict=True) if d > 0.0 and not math.isnan(s)]
    if any(s < 0.0 or math.isinf(s) for s, _ in usable):
        raise ValueError("fit_prior takes variances that are finite and not negative")
    largest = max((s for s, _ in usable), default=math.nan)
    if largest == 0.0:
        return Prior(math.inf if len(usable) > 1 else 0.0, 0.0)
    usable = [(s, d) for s, d in usable if s > _ROUNDING * largest]
    if len(usable) < 2:
        return Prior(0.0, largest)
    logs = [math.log(s) - digamma(d / 2.0) + math.log(d / 2.0) for s, d in usable]
    mean = fmean(logs)
    spread = math.fsum((e - mean) ** 2 for e in logs) / (len(logs) - 1)
    excess = spread - fmean(trigamma(d / 2.0) for _, d in usable)
    if excess <= 0.0:
        return Prior(math.inf, math.fsum(s * d for s, d in usable) / math.fsum(d for _, d in usable))
    half = inverse_trigamma(excess)
    return Prior(2.0 * half, math.exp(mean + digamma(half) - math.log(half)))


def moderated(prior: Prior, variance: float, df: float) -> float:
    """Posterior mean variance, (d0 s0^2 + d s^2) / (d0 + d) (Smyth 2004, equation 1).

    ``variance`` is not looked at when ``df`` is 0 or d0 is inf, nor the prior's when d0 is 0; NaN if both are 0.
    """
    if math.isinf(prior.df) or df <= 0.0:
        return prior.variance if prior.df > 0.0 else math.nan
    if prior.df <= 0.0:
        return variance
    return (prior.df * prior.variance + df * variance) / (prior.df + df)


class _TwoWayFit(NamedTuple):
    """Least-squares fit of value = candidate + seed.

    Attributes:
        scores: mu_c, one a row.
        blocks: b_s by seed, in the metric's units; the reference seeds' sum to zero.
        variances: residual variance of each row, NaN where it has no degrees of freedom.
        dfs: degrees of freedom of each variance, real: E(rss_c) / sigma^2 under equal variances.
    """

    scores: list[float]
    blocks: dict[int, float]
    variances: list[float]
    dfs: list[float]


def two_way_fit(rows: Sequence[Mapping[int, float]], reference: Sequence[int]) -> _TwoWayFit:
    """Fit y_cs = mu_c + b_s + e, with seeds as blocks that candidates share.

    The seeds' normal equations are solved exactly: O(cells + seeds^3). A row that has just the reference seeds is
    scored by its mean, exactly. Candidates that share no seed even through others cannot be compared by blocks: each
    connected group of seeds sums to zero over the reference seeds in it, or over all of it if there are none.

    The degrees of freedom of a row are the trace of its part of the residual projection, which sums to cells -
    candidates - seeds + groups; in a balanced design that is (n_c - 1)(1 - 1 / candidates), and a cell that its seed's
    block alone explains counts for nothing.

    Args:
        rows: for each candidate its finite values by seed, at least one.
        reference: seeds whose blocks sum to zero; those that no row has are passed over.
    """
    for index, row in enumerate(rows):
        if not row or not all(map(math.isfinite, row.values())):
            raise ValueError(f"row {index} = {dict(row)!r}: a row takes one finite value or more")
    means = [math.fsum(row.values()) / len(row) for row in rows]
    keys = [tuple(sorted(row)) for row in rows]
    deviations: dict[int, list[float]] = {}
    for row, mean in zip(rows, means, strict=True):
        for seed, value in row.items():
            deviations.setdefault(seed, []).append(value - mean)
    excess = {seed: math.fsum(deviations[seed]) for seed in sorted(deviations)}
    designs = Counter(keys)
    blocks: dict[int, float] = {}
    df_of: dict[tuple[int, ...], float] = {}
    centred: set[tuple[int, ...]] = set()
    for group in _connected(list(excess), designs):
        inside = {key: count for key, count in designs.items() if key[0] in group}
        inverse = _laplacian_inverse(group, inside)
        zero_sum = [seed for seed in group if seed in reference] or group
        blocks |= _group_blocks(group, inverse, excess, zero_sum)
        df_of |= {key: _row_df(key, group, inverse) for key in inside}
        centred.add(tuple(zero_sum))
    shift = {key: 0.0 if key in centred else math.fsum(blocks[seed] for seed in key) / len(key) for key in designs}
    scores = [mean - shift[key] for mean, key in zip(means, keys, strict=True)]
    variances = []
    for row, score, key in zip(rows, scores, keys, strict=True):
        rss = math.fsum((value - score - blocks[seed]) ** 2 for seed, value in row.items())
        variances.append(rss / df_of[key] if df_of[key] else math.nan)
    return _TwoWayFit(scores, blocks, variances, [df_of[key] for key in keys])


def _group_blocks(
    group: Sequence[int], inverse: Sequence[Sequence[float]], excess: Mapping[int, float], zero_sum: Sequence[int]
) -> dict[int, float]:
    """Blocks of one group of seeds from the sums of deviations from row means."""
    free = {
        seed: math.fsum(g * excess[other] for g, other in zip(line, group, strict=True))
        for seed, line in zip(group, inverse, strict=True)
    }
    centre = math.fsum(free[seed] for seed in zero_sum) / len(zero_sum)
    return {seed: value - centre for seed, value in free.items()}


def _row_df(key: tuple[int, ...], group: Sequence[int], inverse: Sequence[Sequence[float]]) -> float:
    """Trace of a row's part of the residual projection: n_c - 1 less what the blocks take."""
    at = [group.index(seed) for seed in key]
    taken = math.fsum(inverse[i][i] for i in at) - math.fsum(inverse[i][j] for i in at for j in at) / len(at)
    df = len(at) - 1 - taken
    return df if df > _NO_DF else 0.0


def _connected(seeds: Sequence[int], designs: Mapping[tuple[int, ...], int]) -> list[list[int]]:
    """Groups of seeds joined by candidates that have both, each sorted."""
    group_of = {seed: [seed] for seed in seeds}
    for key in designs:
        for one, other in pairwise(key):
            if group_of[one] is not group_of[other]:
                joined = sorted(group_of[one] + group_of[other])
                group_of |= dict.fromkeys(joined, joined)
    return [group for seed, group in group_of.items() if group[0] == seed]


def _laplacian_inverse(group: Sequence[int], designs: Mapping[tuple[int, ...], int]) -> list[list[float]]:
    """A generalised inverse of the seeds' normal matrix, sum_c (I - 11'/n_c): its first row and column are zero.

    The matrix is a graph's Laplacian. Holding the first seed at zero leaves a positive definite one, which
    Gauss-Jordan elimination inverts without pivoting.
    """
    size = len(group)
    place = {seed: i for i, seed in enumerate(group)}
    matrix = [[0.0] * size for _ in range(size)]
    for key, count in sorted(designs.items()):
        at = [place[seed] for seed in key]
        for i in at:
            matrix[i][i] += count
            for j in at:
                matrix[i][j] -= count / len(key)
    work = [matrix[i] + [float(i == j) for j in range(size)] for i in range(size)]
    for column in range(1, size):
        pivot = work[column]
        scale = pivot[column]
        work[column] = pivot = [v / scale for v in pivot]
        for i in range(1, size):
            if i != column and work[i][column]:
                factor = work[i][column]
                work[i] = [v - factor * p for v, p in zip(work[i], pivot, strict=True)]
    return [[0.0] * size] + [[0.0, *line[size + 1 :]] for line in work[1:]]
