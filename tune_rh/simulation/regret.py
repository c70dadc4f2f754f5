"""Regret over repeated simulated searches: what they had reached at shares of their budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.stats.interval import Interval, mean_interval
from tune_rh.simulation.clock import Table, Trace


@dataclass(frozen=True)
class Row:
    """What repeated searches had reached at a share of the budget.

    Attributes:
        steps: computed so far.
        seconds: mean virtual time.
        regret: mean over the repeats, with its 95% interval (Student's t, not below 0; NaN ends for one repeat).
    """

    fraction: float
    steps: int
    seconds: float
    regret: Interval


def rows(traces: Sequence[Trace], budget: float, prior: float, fractions: Iterable[float]) -> list[Row]:
    """Mean regret over repeats at ``fractions`` of ``budget`` steps; ``prior`` counts before there is an incumbent."""
    table = []
    for fraction in fractions:
        at = np.array([fraction * budget])
        regret = mean_interval([float(trace.at(at, prior)[0]) for trace in traces])
        seconds = float(np.mean([trace.seconds_at(at)[0] for trace in traces]))
        # Nothing is better than the best of the table. The order keeps NaN.
        regret = regret._replace(low=0.0 if regret.low < 0.0 else regret.low)
        table.append(Row(fraction, round(fraction * budget), seconds, regret))
    return table


def prior_regret(table: Table) -> float:
    """Regret of the median config: what counts before a tuner has an incumbent."""
    return float(np.median(table.truth) - table.truth.min())
