"""Regret over repeated simulated searches: what they had reached at shares of their budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tune_rh.simulation.clock import Table, Trace


@dataclass(frozen=True)
class Row:
    """What repeated searches had reached at a share of the budget.

    Attributes:
        steps: computed so far.
        seconds: mean virtual time.
        regret: mean over the repeats.
        low, high: its 95% interval (Student's t over the repeats, not below 0); NaN for one repeat.
    """

    fraction: float
    steps: int
    seconds: float
    regret: float
    low: float
    high: float


def rows(traces: Sequence[Trace], budget: float, prior: float, fractions: Iterable[float]) -> list[Row]:
    """Mean regret over repeats at ``fractions`` of ``budget`` steps; ``prior`` counts before there is an incumbent."""
    from scipy import stats

    found = []
    for fraction in fractions:
        at = np.array([fraction * budget])
        regrets = np.concatenate([trace.at(at, prior) for trace in traces])
        seconds = float(np.mean([trace.seconds_at(at)[0] for trace in traces]))
        mean, half = float(regrets.mean()), math.nan
        if len(regrets) > 1:
            half = float(stats.t.ppf(0.975, len(regrets) - 1) * regrets.std(ddof=1) / math.sqrt(len(regrets)))
        low = math.nan if math.isnan(half) else max(0.0, mean - half)
        found.append(Row(fraction, round(fraction * budget), seconds, mean, low, mean + half))
    return found


def prior_regret(table: Table) -> float:
    """Regret of the median config: what counts before a tuner has an incumbent."""
    return float(np.median(table.truth) - table.truth.min())
