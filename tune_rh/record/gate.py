"""One gate: what has arrived, how it ranks, what has gone on. Kept up to date arrival by arrival.

After every call `order` holds all that are ranked. `waiting`, `held` and `cut` are parts of it without a candidate in
common, and without those that went on or are out; `healthier` is a part of `waiting`. All are sorted by the scores as
they are now: a rank leaves its lists by its old score before the new one is noted.

An arrival costs O(log n) beside the fit over all seeds, which is made anew for each of the first arrivals and then
whenever their number has grown by a quarter. Lower is better; the objective's sign is turned before it comes here.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

from analysis.stats.agreement import LearnedShare
from analysis.stats.scores import SeedScores, Values, chance_below
from analysis.stats.seeds import Prior
from tune_rh.plan.rules import PromoteRule
from tune_rh.plan.schema import Plan
from tune_rh.record.rules import is_healthier

_ALWAYS_FIT = 32
_GROWTH = 1.25
_MIN_PAIRS = 4
"""Fewer candidates that have been seen at the next gate say nothing about how ranks move."""


class Rank(NamedTuple):
    """Sort key of a candidate at a gate: score, then order of entry into the search (the candidate's index)."""

    score: float
    entry: int


class Gate:
    """The gate at the end of stage ``stage``. The control arrives as well, but takes no rank and no quota."""

    def __init__(self, plan: Plan, stage: int) -> None:
        self.order: list[Rank] = []
        self.waiting: list[Rank] = []  # those that may be promoted
        self.cut: list[Rank] = []  # where gates stop at once: those that were below the cut when they arrived
        self.held: list[Rank] = []  # those that wait for a seed more or for a diagnosis
        self.healthier: list[Rank] = []  # those of `waiting` that are healthier than the control, by the rule
        self.unranked: dict[int, Values] = {}  # scored, without rank and quota: the control (0), references, follow-ups
        self.passing: list[int] = []  # unranked ones that wait to go on
        self.num_promoted = 0
        self.num_lost_later = 0
        self.num_extra = 0
        self.control_health: Mapping[str, float] = {}
        self._terms = plan.gate(stage)
        sign = 1.0 if plan.mode == "min" else -1.0
        scoring = self._terms.scoring
        success = None if scoring.success is None else sign * scoring.success
        self._seeds = SeedScores(scoring.objective, scoring.k, success, plan.stage_seeds(stage))
        start = self._terms.learning
        self.learnt = None
        if start is not None:
            given = (start.prior, start.cost, start.num, start.most, start.weight)
            self.learnt = LearnedShare(1.0 / self._terms.eta, *given)
        # The mean of common seeds needs nothing learnt.
        self._learns = bool(scoring.objective == "best_of_k" or scoring.band or scoring.extra_seeds or self.learnt)
        self._health: dict[int, Mapping[str, float]] = {}
        self._values: dict[int, Values] = {}
        self._scores: dict[int, float] = {}
        self._eligible: set[int] = set()
        self._held: set[int] = set()
        self._extra: set[int] = set()
        self._out: set[int] = set()
        self._with_failures: set[int] = set()
        self._worst = -math.inf
        self._later: Gate | None = None
        self._moved = 0.0
        self._num_moved = 0
        self._next_fit = self._next_moved = 0

    def arrive(
        self, index: int, values: Values, *, eligible: bool, health: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """Candidate ``index`` is complete here; ``values`` has one entry a seed, None for a lost one.

        ``health`` has the metrics of the promote rule as they are now: they stay so when the candidate has gone on.
        A candidate that is not ``eligible`` (all seeds lost, or a failing health check) goes no further: it is out. A
        candidate that was held arrives a second time, with one seed more.
        """
        # First what all lost seeds count as, then this candidate's score, then what is learnt with it in.
        self._see(values)
        if index in self._held:
            self._held.discard(index)
            self._eligible.discard(index)
            _remove(self.held, self._rank(index))
            _remove(self.order, self._rank(index))
        self._values[index] = dict(values)
        self._health[index] = health
        if eligible:
            self._eligible.add(index)
        else:
            self._out.add(index)
        if None in values.values():
            self._with_failures.add(index)
        self._insert(index)
        if self._terms.cuts and eligible and self.rank(index) >= self.quota(up=True):
            self._leave(index)
            self._eligible.discard(index)
            insort(self.cut, self._rank(index))
        self._learn()

    def arrive_unranked(self, index: int, values: Values, *, eligible: bool) -> None:
        """A candidate that is not ranked here is complete; if it is ``eligible`` it goes on, whatever its score."""
        self._held.discard(index)
        self.unranked[index] = dict(values)
        if eligible:
            insort(self.passing, index)
        else:
            self._out.add(index)
        self._see_beside(values)

    def arrive_reference(self, index: int, values: Values) -> None:
        """A reference is complete here: it is scored, and goes on like the control."""
        self.unranked[index] = dict(values)
        self._see_beside(values)

    def arrive_control(self, values: Values, health: Mapping[str, float] = MappingProxyType({})) -> None:
        """The control is complete here; arguments as for a candidate."""
        self.unranked[0] = dict(values)
        self.control_health = health
        # Before its values are seen: a rank that they change leaves and enters both lists.
        self.healthier = [rank for rank in self.waiting if self._is_healthier(rank.entry)]
        self._see_beside(values)

    def promote(self, index: int) -> None:
        """Candidate ``index`` goes on."""
        if index in self.unranked:
            self.passing = [other for other in self.passing if other != index]
            return
        if index in self._eligible:
            self._leave(index)
            self._eligible.discard(index)
        else:
            _remove(self.cut, self._rank(index))
        self.num_promoted += 1

    def hold(self, index: int) -> None:
        """Candidate ``index`` keeps its rank, and waits for a seed more or for a diagnosis before it may go on."""
        if index in self.unranked:
            self.passing.remove(index)
            self._held.add(index)
            return
        if index in self._eligible:
            self._leave(index)
        else:
            _remove(self.cut, self._rank(index))
        insort(self.held, self._rank(index))
        self._held.add(index)

    def add_seed(self, index: int) -> None:
        """Candidate ``index`` waits for one seed more."""
        self.hold(index)
        self._extra.add(index)
        self.num_extra += 1

    def learn_from(self, later: Gate) -> None:
        """Learn from an arrival at ``later``, the next gate, how far ranks move from here to there."""
        self._later = later
        num = len(later.order)
        if self._learns and (num <= _ALWAYS_FIT or num >= self._next_moved):
            self._next_moved = math.ceil(_GROWTH * num)
            self._see_moves()

    def estimate(self) -> None:
        """Estimate how well ranks here foretell those at the next gate and at the end, where the gate learns that."""
        if self.learnt is not None and self.order:
            beyond = self._later.learnt if self._later else None
            later = beyond.to_end if beyond else 1.0
            self.learnt.learn(_rounded(len(self.order)), self._num_moved, self._moved, later)

    def health(self, index: int) -> Mapping[str, float]:
        """Health that an arrived candidate came with."""
        return self._health[index]

    def score(self, index: int) -> float:
        """Score of an arrived candidate."""
        return self._scores[index] if index in self._scores else self._score(self.unranked[index])

    def has(self, index: int) -> bool:
        """Whether candidate ``index`` has arrived and waits for no seed."""
        return (index in self._scores or index in self.unranked) and index not in self._held

    def is_out(self, index: int) -> bool:
        """Whether candidate ``index`` has arrived and may go no further."""
        return index in self._out

    def had_extra(self, index: int) -> bool:
        """Whether candidate ``index`` was given one more seed here."""
        return index in self._extra

    def values(self, index: int) -> Values:
        """What ``index`` arrived with, one entry a seed."""
        return self._values[index] if index in self._values else self.unranked[index]

    def arrivals(self, num: int) -> Iterator[tuple[int, Values]]:
        """The first ``num`` candidates that came and are ranked here, with their values as they are now."""
        return islice(self._values.items(), num)

    @property
    def seeds(self) -> SeedScores:
        """What the gate has learnt about its seeds."""
        return self._seeds

    def error(self, index: int) -> tuple[float, float]:
        """Standard error of a candidate's mean over seeds, moderated over all, and its degrees of freedom."""
        return self._error(self.values(index))

    @property
    def control(self) -> Values | None:
        """What the control arrived with, or None while it is on its way."""
        return self.unranked.get(0)

    def control_score(self) -> float | None:
        """The control's score, or None while it is on its way."""
        return None if self.control is None else self.score(0)

    def successes(self, index: int) -> int | None:
        """How many seeds of a candidate found the good minimum; None where no line is drawn."""
        return self._seeds.successes(self.values(index))

    @property
    def success(self) -> float | None:
        """The line between seeds that found the good minimum and those that did not, where one is drawn."""
        return self._seeds.success

    def rank(self, index: int) -> int:
        """0-based place among all that are ranked here (an unranked one: the place that it would have)."""
        return bisect_left(self.order, self._rank(index))

    @property
    def rule(self) -> PromoteRule | None:
        """What promotes here beside the quota."""
        return self._terms.promote

    @property
    def for_seeds(self) -> bool:
        """Whether the gate learns its share, and those that go on get further seeds alone."""
        return self._terms.for_seeds

    def quota(self, *, times: float = 1.0, up: bool = False) -> int:
        """See `tune_rh.plan.stages.GateTerms.quota`, of all that are ranked here."""
        eta = None if self.learnt is None else 1.0 / self.learnt.share
        return self._terms.quota(len(self.order), times=times, up=up, eta=eta)

    def chance_of_lead(self, index: int) -> float:
        """Probability that candidate ``index`` is truly at least as good as the first by score; 1 if none can tell."""
        first = self.order[0]
        (error, df), (other, _) = self.error(index), self.error(first.entry)
        if first.entry == index or math.isnan(error) or math.isnan(other) or not math.isfinite(first.score):
            return 1.0
        return chance_below(first.score, self._scores[index], math.hypot(error, other), 0.0, df)

    def chance(self, index: int) -> float:
        """Probability that candidate ``index`` truly is among the quota; 0 while there is none.

        Student's t around its score, with the moderated variance over seeds and what past promotions have shown of
        how ranks move on the way to the next gate.
        """
        quota = self.quota()
        if not 0 < quota < len(self.order):
            return 0.0
        cut = (self.order[quota - 1].score + self.order[quota].score) / 2
        error, df = self._error(self._values[index])
        if not math.isfinite(cut) or math.isnan(error):
            return 0.0
        return chance_below(cut, self._scores[index], error, self._spread(quota, error), df)

    def _error(self, values: Values) -> tuple[float, float]:
        elsewhere, start = self._later._seeds.prior if self._later else None, self._terms.learning
        if start and start.seed_df and not (elsewhere and elsewhere.df):
            elsewhere = Prior(start.seed_df, start.seed_variance)  # of an earlier run
        return self._seeds.error(values, elsewhere)

    def _spread(self, quota: int, error: float) -> float:
        """Standard deviation, in units of the score at the cut, of what moves ranks beyond the noise of seeds."""
        if not self._moved:
            return 0.0
        last = len(self.order) - 1
        high = self.order[min(last, round(quota - 0.5 + self._moved))].score
        low = self.order[max(0, round(quota - 0.5 - self._moved))].score
        half = (high - low) / 2
        return math.sqrt(max(0.0, half * half - error * error)) if math.isfinite(half) else 0.0

    def _score(self, values: Values) -> float:
        return self._seeds.score(values, self._worst if self._worst > -math.inf else math.inf)

    def _rank(self, index: int) -> Rank:
        return Rank(self.score(index), index)

    def _insert(self, index: int) -> None:
        self._scores[index] = self._score(self._values[index])
        rank = self._rank(index)
        insort(self.order, rank)
        if index in self._eligible and index not in self._held:
            insort(self.waiting, rank)
            if self._is_healthier(index):
                insort(self.healthier, rank)

    def _leave(self, index: int) -> None:
        rank = self._rank(index)
        _remove(self.waiting, rank)
        if self._is_healthier(index):
            _remove(self.healthier, rank)

    def _is_healthier(self, index: int) -> bool:
        rule = self._terms.promote
        if rule is None or self.control is None:
            return False
        return is_healthier(rule, self._health[index], self.control_health)

    def _see(self, values: Values) -> None:
        worst = max((v for v in values.values() if v is not None), default=-math.inf)
        if worst > self._worst:
            self._worst = worst
            self._rescore(self._with_failures)

    def _see_beside(self, values: Values) -> None:
        """As `_see`, of an unranked candidate: it may be the first here, or show a new worst to learn from."""
        self._see(values)
        if self._seeds.shifts:
            self._learn()

    def _learn(self) -> None:
        num = len(self.order)
        if not self._learns or (num > _ALWAYS_FIT and num < self._next_fit):
            return
        self._next_fit = math.ceil(_GROWTH * num)
        self._seeds.fit(self._values.values(), self._worst)
        self._rescore(self._values if self._seeds.shifts else self._extra - self._held)
        if self._later is not None and len(self._later.order) <= _ALWAYS_FIT:
            self._see_moves()

    def _see_moves(self) -> None:
        """Root mean square number of places by which candidates moved from this gate to the next, among themselves."""
        if self._later is None or len(self._later.order) < _MIN_PAIRS:
            return
        later = {rank.entry: place for place, rank in enumerate(self._later.order)}
        here = sorted(self._rank(index) for index in later)
        self._num_moved = len(here)
        self._moved = math.sqrt(sum((later[rank.entry] - place) ** 2 for place, rank in enumerate(here)) / len(here))

    def _rescore(self, indices: set[int] | dict[int, Values]) -> None:
        changed = [i for i in indices if self._score(self._values[i]) != self._scores[i]]
        for index in changed:
            rank = self._rank(index)
            _remove(self.order, rank)
            if index in self._held:
                _remove(self.held, rank)
                insort(self.held, Rank(self._score(self._values[index]), index))
            elif index in self._eligible:
                self._leave(index)
            elif (place := bisect_left(self.cut, rank)) < len(self.cut) and self.cut[place] == rank:
                del self.cut[place]
                insort(self.cut, Rank(self._score(self._values[index]), index))
            self._insert(index)


def learn_shares(gates: Sequence[Gate], stage: int) -> None:
    """A candidate has come to the gate of ``stage``: what is known of ranks flows down, shares are chosen upwards."""
    if stage:
        gates[stage - 1].learn_from(gates[stage])  # of the order with this candidate in it
    for gate in reversed(gates[: stage + 1]):
        gate.estimate()
    passed = 1.0
    for gate in gates:
        if gate.learnt is not None:
            passed = gate.learnt.choose(passed)


def change_terms(gates: Sequence[Gate], plan: Plan) -> None:
    """The plan has changed: what its gates expect to come is another number."""
    for k, gate in enumerate(gates):
        gate._terms = plan.gate(k)
        if gate.learnt is not None and gate._terms.learning is not None:
            start = gate._terms.learning
            gate.learnt.expect(start.cost, start.num, start.most)


def _rounded(num: int) -> int:
    """``num``, or for many the last power of `_GROWTH` below it: shares are chosen anew as seldom as fits are made."""
    return num if num <= _ALWAYS_FIT else math.floor(_GROWTH ** math.floor(math.log(num, _GROWTH)))


def _remove(ranks: list[Rank], rank: Rank) -> None:
    del ranks[bisect_left(ranks, rank)]
