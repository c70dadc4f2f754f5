"""A search by the value of information: what runs next is what the final choice is expected to gain most from, a step.

A candidate may be taken through one gate or several, to more steps or to more seeds at the last step; or a new one
begins. What each would show follows from a Markov chain over the steps of the stages (`analysis.stats.chain`), learnt
from the candidates of this search. Of what is worth most only the first stage runs; then all are weighed again.

All candidates at a gate have the same seeds at the same step, so that one more stage is worth most for the best of
them: of each gate only the first that waits is weighed, however many wait.

So that a chain that is wrong does not rule, every second decision is one of plain successive halving.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import nsmallest
from itertools import accumulate
from typing import NamedTuple

from analysis.stats.chain import log_expected_gain
from tune_rh.decide.extrapolation import Extrapolation, current
from tune_rh.decide.follow_ups import is_over_budget
from tune_rh.decide.further import uncommitted
from tune_rh.decide.halving import (
    after_report,
    audit,
    close_gate,
    is_full,
    keep_up,
    lacks_named,
    may_ask,
    promotion,
    run_first,
)
from tune_rh.decide.scheduler import AskCandidate, Decision, Finish, Wait
from tune_rh.plan import cost
from tune_rh.plan.kinds import Budget, Search
from tune_rh.record.events import MemberId, Promoted
from tune_rh.record.gate import Gate, Rank
from tune_rh.record.history import History

_STARTUP = 8
"""So many candidates are begun before anything is weighed."""


class Package(NamedTuple):
    """Something that may run: to the gate of ``stage`` with the first that waits at ``gate`` (None: a new candidate).

    ``rate`` is the logarithm of ``gain``, in units of the objective, a step.
    """

    rate: float
    gate: int | None
    stage: int
    gain: float


@dataclass(eq=False)
class ValueScheduler:
    """The scheduler of a search by value of information."""

    plan: Search
    verdict = staticmethod(after_report)
    _last: Extrapolation | None = field(default=None, init=False)

    def next(self, history: History, prefer: MemberId | None = None) -> Decision:
        """What a free slot does.

        In this order: the jobs of what was decided; the control keeps up; while the budget lasts, by turns what halving
        or what the value of information says; then gates that no other candidate can reach are filled; wait; audits;
        finish.
        """
        plan, pending = self.plan, history.pending
        passed = keep_up(history)
        if passed:
            return passed
        if pending:
            return run_first(plan, pending, prefer)
        late: Decision | None = None
        if not history.num_audited:
            late = (None if is_over_budget(plan, history) else self._spend(history)) or self._close(history)
        if late is None and plan.audit:
            late = audit(plan, history)
        if late is not None:
            return late
        return Wait() if history.running else Finish()

    def steps_left(self, history: History) -> float:
        """Steps that may still be given out: of the plan's budget, or of what its gates would cost by their quotas."""
        return uncommitted(self.plan, history, self._most_steps)

    @cached_property
    def _most_steps(self) -> float:
        if self.plan.budget == Budget():
            return sum(row.steps for row in cost.expected(self.plan))
        return self.plan.budget.max_steps or math.inf

    @cached_property
    def _steps(self) -> list[int]:
        """Steps that a candidate has taken when it is at the gate of each stage."""
        return [stage.num_seeds * stage.until_step for stage in self.plan.stages]

    def _spend(self, history: History) -> Promoted | AskCandidate | None:
        """What runs next within the budget; None for nothing that fits into what is left of it."""
        if lacks_named(self.plan, history):
            return AskCandidate()
        left = self.steps_left(history)
        asks = may_ask(self.plan, history) and self._steps[0] <= left
        if asks and history.num_candidates() < _STARTUP:
            return AskCandidate()
        num_decided = history.num_candidates() + sum(gate.num_promoted for gate in history.gates)
        if num_decided % 2:
            by_quota = self._by_quota(history, left)
            if by_quota is not None:
                return by_quota
            if asks and self._steps[_first_at_end(self.plan)] <= left:
                return AskCandidate()
        package = max(self._packages(history, left, asks), default=None, key=lambda package: package.rate)
        if package is None:  # too few were read to weigh anything
            return AskCandidate() if asks else self._first_waiting(history, left)
        if package.gate is None:
            return AskCandidate(package.gain, package.stage)
        first = history.gates[package.gate].waiting[0].entry
        passed = promotion(history, package.gate, first, "value")
        return replace(passed, gain=package.gain, towards=package.stage)

    def _open(self, history: History, left: float) -> Iterator[tuple[int, Gate]]:
        """Gates at which a candidate waits that may go on, and whose next stage fits into ``left``; highest first."""
        for k in reversed(range(self.plan.last_stage)):
            gate = history.gates[k]
            if gate.waiting and not is_full(self.plan.stages[k], gate) and self._steps[k + 1] - self._steps[k] <= left:
                yield k, gate

    def _by_quota(self, history: History, left: float) -> Promoted | None:
        """Plain halving over steps: of the highest gate that has let fewer on than its quota the best that waits."""
        stages = self.plan.stages
        for k, gate in self._open(history, left):
            first = gate.waiting[0].entry
            if stages[k + 1].until_step > stages[k].until_step and gate.rank(first) < gate.quota():
                return promotion(history, k, first, "quota")
        return None

    def _first_waiting(self, history: History, left: float) -> Promoted | None:
        """The best at the highest gate where any waits: better than to stand idle."""
        for k, gate in self._open(history, left):
            return promotion(history, k, gate.waiting[0].entry, "idle")
        return None

    def _packages(self, history: History, left: float, asks: bool) -> Iterator[Package]:
        """All that may run now within the steps that are ``left``, of a gate only with the first that waits there."""
        self._last = known = current(history, self._last)
        standing = sorted(self._standing(history, known)) if known.chain is not None else []
        if known.chain is None or not standing:
            return
        best, second = standing[0], standing[min(1, len(standing) - 1)]
        steps, stages = self._steps, range(len(self._steps))
        # What is known never shrinks as more is read.
        explained = list(accumulate((known.explained(k) for k in stages), max))
        for k, gate in self._open(history, left):
            entry = gate.waiting[0].entry
            behind = second[0] if entry == best[1] else known.estimate(k, gate.values(entry)).mean
            for to in stages[k + 1 :]:
                if steps[to] - steps[k] <= left:
                    yield _package(behind - best[0], explained[to] - explained[k], steps[to] - steps[k], k, to)
        if asks:
            for to in stages:
                if steps[to] <= left:
                    yield _package(known.chain.of_a_draw.mean - best[0], explained[to], steps[to], None, to)

    def _standing(self, history: History, known: Extrapolation) -> Iterator[tuple[float, int]]:
        """(estimated final value, index) of what may be the best: the first at gates, those under way, the control."""
        under_way = [list[Rank]() for _ in history.gates]
        for candidate in map(history.candidates.__getitem__, {member.candidate for member in history.running}):
            if candidate.stage and candidate.is_ranked and not history.is_complete(candidate):
                before = candidate.stage - 1
                under_way[before].append(Rank(history.gates[before].score(candidate.index), candidate.index))
        for k, (gate, gone) in enumerate(zip(history.gates, under_way, strict=True)):
            for rank in (*gate.waiting[:2], *gate.held[:2], *nsmallest(2, gone)):
                yield known.estimate(k, gate.values(rank.entry)).mean, rank.entry
        control = history.control
        if control is not None:
            reached = [k for k, gate in enumerate(history.gates) if gate.control is not None]
            if reached:
                yield known.estimate(reached[-1], history.gates[reached[-1]].values(control.index)).mean, control.index

    def _close(self, history: History) -> Promoted | AskCandidate | None:
        """Once the budget is spent: fill ``at_least`` of the gates, from the lowest up, and bring the control along."""
        if lacks_named(self.plan, history):
            return AskCandidate()
        for k in range(self.plan.last_stage):
            if history.incomplete[k]:
                return None
            closed = close_gate(history, k)
            if closed:
                return closed
        return None


def _first_at_end(plan: Search) -> int:
    """The first stage that ends at the last step."""
    return next(k for k, stage in enumerate(plan.stages) if stage.until_step == plan.stages[-1].until_step)


def _package(behind: float, explained: float, steps: int, gate: int | None, stage: int) -> Package:
    log_gain = log_expected_gain(behind, math.sqrt(max(explained, 0.0)))
    return Package(log_gain - math.log(steps), gate, stage, math.exp(log_gain))
