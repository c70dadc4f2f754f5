"""One gate: who has arrived, how they rank, who has gone on. Kept up to date arrival by arrival in O(log n).

A candidate's score is the mean over its seeds of the best value each had reached at the gate; a diverged or failed
seed counts as the worst value that any seed has shown at this gate. The score is a function of the set of arrivals,
not of their order. Lower is better; the objective's sign is turned before it comes here.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from tune_rh.plan import PromoteRule
from tune_rh.rules import is_healthier


class Rank(NamedTuple):
    """Sort key of a candidate at a gate: score, then order of entry into the search (the candidate's index)."""

    score: float
    entry: int


class Gate:
    """The gate at the end of one stage. The control arrives as well, but takes no rank and no quota."""

    def __init__(self, rule: PromoteRule | None = None) -> None:
        self.order: list[Rank] = []
        self.waiting: list[Rank] = []
        self.healthier: list[Rank] = []  # those of `waiting` that are healthier than the control, by `rule`
        self.num_promoted = 0
        self.num_out = 0
        self.control: tuple[float | None, ...] | None = None
        self.control_health = math.nan
        self._rule = rule
        self._health: dict[int, float] = {}
        self._values: dict[int, tuple[float | None, ...]] = {}
        self._scores: dict[int, float] = {}
        self._eligible: set[int] = set()
        self._with_failures: set[int] = set()
        self._worst = -math.inf

    def arrive(self, index: int, values: Sequence[float | None], *, eligible: bool, health: float = math.nan) -> None:
        """Candidate ``index`` is complete here; ``values`` holds one number a seed, None for a failed one.

        ``health`` is the rule's health metric as it is now, and stays what it was when the candidate has gone on.
        One that is not ``eligible`` (all seeds lost, or a failing health check) goes no further: it is out.
        """
        self._values[index] = tuple(values)
        self._health[index] = health
        if eligible:
            self._eligible.add(index)
        else:
            self.num_out += 1
        if None in values:
            self._with_failures.add(index)
        self._insert(index)
        self._see(values)

    def arrive_control(self, values: Sequence[float | None], health: float = math.nan) -> None:
        """The control is complete here; ``health`` as for a candidate."""
        self.control = tuple(values)
        self.control_health = health
        self.healthier = [rank for rank in self.waiting if self._is_healthier(rank.entry)]
        self._see(values)

    def promote(self, index: int) -> None:
        """Candidate ``index`` goes on."""
        self._leave(index)
        self._eligible.discard(index)
        self.num_promoted += 1

    def health(self, index: int) -> float:
        """Health that an arrived candidate came with."""
        return self._health[index]

    def score(self, index: int) -> float:
        """Score of an arrived candidate."""
        return self._scores[index]

    def has(self, index: int) -> bool:
        """Whether candidate ``index`` has arrived."""
        return index in self._scores

    def values(self, index: int) -> tuple[float | None, ...]:
        """What ``index`` arrived with, one entry a seed."""
        return self._values[index]

    def control_score(self) -> float | None:
        """The control's score, or None while it is on its way."""
        return None if self.control is None else self._mean(self.control)

    def rank(self, index: int) -> int:
        """0-based place among all that have arrived."""
        return bisect_left(self.order, Rank(self._scores[index], index))

    def _mean(self, values: Sequence[float | None]) -> float:
        worst = self._worst if self._worst > -math.inf else math.inf
        return fmean(worst if v is None else v for v in values)

    def _insert(self, index: int) -> None:
        score = self._scores[index] = self._mean(self._values[index])
        insort(self.order, Rank(score, index))
        if index in self._eligible:
            insort(self.waiting, Rank(score, index))
            if self._is_healthier(index):
                insort(self.healthier, Rank(score, index))

    def _leave(self, index: int) -> None:
        rank = Rank(self._scores[index], index)
        _remove(self.waiting, rank)
        if self._is_healthier(index):
            _remove(self.healthier, rank)

    def _is_healthier(self, index: int) -> bool:
        rule = self._rule
        if rule is None or self.control is None:
            return False
        return is_healthier(rule, self._health[index], self.control_health)

    def _see(self, values: Sequence[float | None]) -> None:
        worst = max((v for v in values if v is not None), default=-math.inf)
        if worst <= self._worst:
            return
        self._worst = worst
        for index in self._with_failures:
            _remove(self.order, Rank(self._scores[index], index))
            if index in self._eligible:
                self._leave(index)
            self._insert(index)


def _remove(ranks: list[Rank], rank: Rank) -> None:
    del ranks[bisect_left(ranks, rank)]
