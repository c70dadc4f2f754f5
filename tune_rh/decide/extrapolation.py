"""What the readings of a run so far say of the final value of each candidate: `analysis.stats.chain` over its gates.

A fit is made of the first arrivals at each gate: of all while they are few, then again whenever their number has grown
by a quarter. So it is a function of the history, as everything that a scheduler reads must be.
"""

from __future__ import annotations

import math
from collections import defaultdict

from analysis.stats.chain import Chain, Estimate, fit_chain
from analysis.stats.scores import Values
from tune_rh.record.history import History
from tune_rh.record.members import Candidate

_ALWAYS_FIT, _GROWTH = 32, 1.25


class Extrapolation:
    """A chain that was fitted to the gates of a history, and where its stages lie on it.

    ``chain`` is None while fewer than two candidates have come to the first gate.
    """

    def __init__(self, history: History) -> None:
        plan = history.plan
        steps = sorted({stage.until_step for stage in plan.stages})
        self._stages = plan.stages
        self._level = [steps.index(stage.until_step) for stage in plan.stages]
        self._fitted = _fitted(history)
        self._gates = list(history.gates)
        self.chain: Chain | None = fit_chain(steps, self._readings(history, steps), plan.seeds[0])

    def holds(self, history: History) -> bool:
        """Whether a fit to ``history`` would be this one."""
        gates = history.gates
        if len(gates) != len(self._gates) or any(a is not b for a, b in zip(gates, self._gates, strict=True)):
            return False
        return self._fitted == _fitted(history)

    def estimate(self, stage: int, values: Values) -> Estimate:
        """What is known of the end of a candidate that came to the gate of ``stage`` with ``values``."""
        assert self.chain is not None
        return self.chain.estimate(self._level[stage], values)

    def of(self, history: History, candidate: Candidate) -> Estimate | None:
        """What is known of the end of a candidate, from the last gate that it has come to; None before the first."""
        reached = [stage for stage, gate in enumerate(history.gates) if gate.has(candidate.index)]
        return self.estimate(reached[-1], history.gates[reached[-1]].values(candidate.index)) if reached else None

    def explained(self, stage: int) -> float:
        """Variance of the final value that is known at the gate of ``stage``."""
        assert self.chain is not None
        return self.chain.explained(self._level[stage], self._stages[stage].num_seeds)

    def in_words(self) -> str:
        """How much of the differences at the end is known at each gate, in a sentence; empty while nothing is."""
        if self.chain is None:
            return ""
        total = self.chain.of_a_draw.variance
        shares = [f"{self.explained(k) / total:.0%} at {stage.end}" for k, stage in enumerate(self._stages)]
        return (
            f"How much of the final differences between candidates is known at each gate, learnt from "
            f"{self._fitted[0]} of them: {', '.join(shares)}."
        )

    def _readings(self, history: History, steps: list[int]) -> list[list[dict[int, float]]]:
        """Of each candidate at a gate, for each level seed -> value."""
        rows = defaultdict[int, list[dict[int, float]]](lambda: [{} for _ in steps])
        for stage, (gate, num) in enumerate(zip(self._gates, self._fitted, strict=True)):
            for index, values in gate.arrivals(num):
                read = {seed: value for seed, value in values.items() if value is not None}
                rows[index][self._level[stage]].update(read)
                if len(read) > 1:
                    _add_seeds_below(history.candidate_at(index), rows[index][: self._level[stage]], steps, read)
        return list(rows.values())


def current(history: History, last: Extrapolation | None) -> Extrapolation:
    """The extrapolation of ``history``: ``last``, if that is still what a fit would be."""
    return last if last is not None and last.holds(history) else Extrapolation(history)


def _fitted(history: History) -> tuple[int, ...]:
    """How many arrivals at each gate a fit is made of."""
    return tuple(_settled(len(gate.order)) for gate in history.gates)


def _settled(num: int) -> int:
    """The last number up to ``num`` at which a fit is made."""
    if num <= _ALWAYS_FIT:
        return num
    folds = math.floor(math.log(num / _ALWAYS_FIT) / math.log(_GROWTH))
    return min(num, math.ceil(_ALWAYS_FIT * _GROWTH**folds))


def _add_seeds_below(
    candidate: Candidate, below: list[dict[int, float]], steps: list[int], read: dict[int, float]
) -> None:
    """A seed that began late passed the lower levels as well: its curve has what it showed there."""
    for level, values in enumerate(below):
        for seed in read.keys() - values.keys():
            value = candidate.members[seed].curve.best_until(steps[level])
            if math.isfinite(value):
                values[seed] = value
