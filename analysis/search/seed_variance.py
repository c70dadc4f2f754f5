"""How much of the spread at a gate is between candidates, and how much between the seeds of one candidate.

Variance components of value = candidate + seed + rest, candidates drawn at random, seeds as blocks that they share,
from the values that seeds brought to a gate; the interval of the share is exact for normal values and equal numbers of
seeds, otherwise an approximation. (Without the blocks, what a seed does to all of them would count as noise between
candidates, which it is not.) Lost seeds are left out and counted; the control is left out.

Source: S. R. Searle, G. Casella and C. E. McCulloch, Variance Components (1992), sections 3.6 and 4.3.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from analysis.stats.interval import Interval
from analysis.stats.seeds import two_way_fit
from analysis.view import Run

_BEST_SHARE, _MIN_BEST = 1 / 3, 3


@dataclass(frozen=True)
class SeedVariance:
    """One gate.

    Attributes:
        num_candidates, num_values: in the split: with two seeds or more in all.
        num_lost: seeds left out because they were lost.
        between, within: variance components, of candidates and of the rest (one seed of one candidate), in squared
            units of the objective. NaN unless two candidates have two seeds in common.
        common: variance over seeds of what a seed does to every candidate.
        seed_share: within / (between + within): 1 where candidates differ by no more than their seeds do. Its interval
            is empty (NaN ends) where candidates differ even less than their seeds alone would make them in 39 of 40
            cases: then no share at all explains what was seen.
        best_share: the same share among the best third by score (at least three), without an interval because they
            were chosen by these values; NaN for fewer.
    """

    gate: int
    until_step: int
    num_candidates: int
    num_values: int
    num_lost: int
    between: float
    within: float
    common: float
    seed_share: Interval
    best_share: float


def seed_variance(run: Run) -> list[SeedVariance]:
    """The split at each gate of a search; a race or comparison has no candidates to draw it over, and gives none."""
    if run.kind != "search":
        return []
    rows = []
    for gate, entries in enumerate(run.gates):
        others = [e for e in entries if e.rank is not None]
        table = [{s: v for s, v in e.values.items() if v is not None} for e in others]
        table = [row for row in table if row]  # best first, as the entries are
        between, within, common, share = _split(table, run.stage_seeds(gate))
        best = table[: max(_MIN_BEST, math.ceil(_BEST_SHARE * len(table)))]
        rows.append(
            SeedVariance(
                gate=gate,
                until_step=run.stages[gate]["until_step"],
                num_candidates=len(table),
                num_values=sum(map(len, table)),
                num_lost=sum(e.num_lost for e in others),
                between=between,
                within=within,
                common=common,
                seed_share=share,
                best_share=_split(best, run.stage_seeds(gate))[3].value if len(best) >= _MIN_BEST else math.nan,
            )
        )
    return rows


def _split(table: Sequence[Mapping[int, float]], seeds: Sequence[int]) -> tuple[float, float, float, Interval]:
    """Components between, within and common; the share within."""
    nothing = math.nan, math.nan, math.nan, Interval(math.nan, math.nan, math.nan)
    if len(table) < 2:
        return nothing
    fit = two_way_fit(table, seeds)
    df = math.fsum(fit.dfs)
    if df < 0.5:  # rounding, or a single candidate with two seeds
        return nothing
    within = math.fsum(v * d for v, d in zip(fit.variances, fit.dfs, strict=True) if d) / df
    size = len(table) / math.fsum(1.0 / len(row) for row in table)
    spread = size * variance(fit.scores)
    if spread == within == 0.0:
        return nothing
    between = max(0.0, (spread - within) / size)
    per_seed = Counter(seed for row in table for seed in row)
    blocks = [fit.blocks[seed] for seed in per_seed]
    noise = within / fmean(per_seed.values())
    common = max(0.0, variance(blocks) - noise) if len(blocks) > 1 else math.nan
    ends = _interval(spread, within, size, len(table) - 1, df)
    return between, within, common, Interval(within / (between + within), *ends)


def _interval(spread: float, within: float, size: float, df: int, df_within: float) -> tuple[float, float]:
    """Of the share within, from F = spread / within, which has the F distribution times 1 + size x between / within."""
    from scipy.stats import f

    if within == 0.0:
        return 0.0, 0.0
    ends = []
    for level in (0.025, 0.975):
        ratio = spread / within / float(f.ppf(level, df, df_within))
        theta = (ratio - 1.0) / size  # between / within
        ends.append(1.0 / (1.0 + theta) if theta > 0.0 else 1.0)
    low, high = min(ends), max(ends)
    return (low, high) if low < 1.0 else (math.nan, math.nan)
