"""Scores of candidates over their seeds at one gate: what is learnt from all of them, and what follows for each.

Lower is better. A lost seed counts as the worst value seen at the gate.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

from analysis.stats.best_of_k import SEPARATED, best_of_k, expected_min, otsu
from analysis.stats.seeds import Prior, fit_prior, moderated, two_way_fit
from analysis.stats.student import t_cdf

Values = Mapping[int, float | None]
"""Seed -> best value so far, None for a seed that was lost."""

_MIN_VALUES = 16
"""With so few values 7% of normal samples are as separated as that by chance; with half as many 32%."""


class SeedScores:
    """What a gate has learnt about its seeds.

    Args:
        objective: ``mean``, or ``best_of_k`` for the best of ``k`` seeds.
        success: the line between good and bad seeds, where it is given (minimised).
        seeds: those that every candidate has at this gate.
    """

    def __init__(self, objective: str, k: int, success: float | None, seeds: Sequence[int]) -> None:
        self._is_mean = objective == "mean"
        self._k = k
        self._seeds = tuple(seeds)
        self._given = success
        self.success: float | None = self._given
        self._success_value = self._failure_value = math.nan
        self._blocks: dict[int, float] = {}
        self._prior = Prior(0.0, math.nan)
        self._df_share, self._pooled_df = 1.0, math.inf

    @property
    def shifts(self) -> bool:
        """Whether a new fit moves the scores of all candidates, and not only of those with seeds of their own."""
        return not self._is_mean

    @property
    def effects(self) -> Mapping[int, float]:
        """Of each seed, on all candidates alike; those of the gate's own seeds sum to zero. Empty before a fit."""
        return self._blocks

    @property
    def prior(self) -> Prior:
        """What this gate knows of the variance of one seed: worth no more than the degrees of freedom it rests on."""
        return Prior(min(self._prior.df, self._pooled_df), self._prior.variance)

    def fit(self, arrived: Collection[Values], worst: float) -> None:
        """Learn from all that have arrived: effects of seeds, their variance, the line between good and bad seeds."""
        if not self._is_mean:
            self._fit_success([v for values in arrived for v in values.values() if v is not None], worst)
        rows = [
            {seed: value for seed, value in values.items() if value is not None}
            for values in arrived
            if None not in values.values()
        ]
        if not rows:
            return
        fit = two_way_fit(rows, self._seeds)
        self._blocks = fit.blocks
        self._prior, self._pooled_df = fit_prior(fit.variances, fit.dfs), math.fsum(fit.dfs)
        free = sum(len(row) - 1 for row in rows)
        self._df_share = self._pooled_df / free if free else 0.0

    def score(self, values: Values, worst: float) -> float:
        """A candidate's score."""
        numbers = [worst if v is None else v for v in values.values()]
        if self._is_mean:
            if values.keys() <= set(self._seeds):
                return fmean(numbers)
            # Of a seed that the others lack, the effect on all candidates must not count for or against this one.
            blocks = (self._blocks.get(seed, 0.0) for seed in values)
            return fmean(number - block for number, block in zip(numbers, blocks, strict=True))
        if not math.isfinite(worst):
            return math.inf
        if self.success is None:
            return expected_min(numbers, min(self._k, len(numbers)))
        finite = [v for v in values.values() if v is not None]
        lost = len(values) - len(finite)
        return best_of_k(finite, lost, self._k, self.success, self._success_value, self._failure_value)

    def successes(self, values: Values) -> int | None:
        """How many seeds found the good minimum; None while no line is drawn between good and bad."""
        if self.success is None:
            return None
        return sum(v is not None and v <= self.success for v in values.values())

    def error(self, values: Values, elsewhere: Prior | None = None) -> tuple[float, float]:
        """Standard error of the mean score, with its degrees of freedom; the variance is moderated over candidates.

        Seeds that were lost tell nothing about the spread of the others: then the others' variance stands alone.
        Where this gate has one seed a candidate and so no variance at all, that of ``elsewhere`` (the next gate)
        serves. (NaN, 0) where there is nothing to tell from.

        There are never more degrees of freedom than all candidates have together: where variances differ by no more
        than sampling makes them, the prior's are infinite, which few candidates do not show (limma bounds them so).
        """
        variance, df = math.nan, 0.0
        if None not in values.values() and len(values) > 1:
            rest = [v - self._blocks.get(seed, 0.0) for seed, v in values.items() if v is not None]
            mean = fmean(rest)
            df = (len(rest) - 1) * self._df_share
            variance = math.fsum((r - mean) ** 2 for r in rest) / df if df else math.nan
        prior, most = self._prior, self._pooled_df
        if not prior.df + df and elsewhere is not None:
            prior, most = elsewhere, elsewhere.df
        total = min(prior.df + df, most)
        if not total:
            return math.nan, 0.0
        pooled = moderated(prior, variance, df) if prior.df else variance
        return math.sqrt(pooled / len(values)), total

    def _fit_success(self, finite: list[float], worst: float) -> None:
        if self._given is None:
            split = otsu(finite) if len(finite) >= _MIN_VALUES else None
            self.success = split.threshold if split and split.separation >= SEPARATED else None
        if self.success is None:
            return
        good = [v for v in finite if v <= self.success]
        bad = [v for v in finite if v > self.success]
        self._success_value = fmean(good) if good else self.success
        self._failure_value = fmean(bad) if bad else max(worst, self.success)


def chance_below(cut: float, score: float, error: float, spread: float, df: float) -> float:
    """Probability that a candidate's true score is below (better than) ``cut``.

    Args:
        error, df: standard error of its score over seeds, and the degrees of freedom.
        spread: how far scores move on the way to the next gate beyond what seeds explain (standard deviation).
    """
    width = math.hypot(error, spread)
    if not width or math.isnan(width):
        return 0.5 if score == cut else float(score < cut)
    return t_cdf((cut - score) / width, df)
