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
from itertools import accumulate
from typing import NamedTuple

from analysis.stats.chain import log_expected_gain
from tune_rh.decide.extrapolation import Extrapolation, current
from tune_rh.decide.follow_ups import is_over_budget
from tune_rh.decide.halving import (
    after_report,
    audit,
    fill,
    is_full,
    keep_up,
    lacks_named,
    may_ask,
    pass_beside,
    promotion,
    run_first,
)
from tune_rh.decide.scheduler import AskCandidate, Decision, Finish, Wait
from tune_rh.plan import cost
from tune_rh.plan.kinds import Budget, Search
from tune_rh.record.events import MemberId, Promoted
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
        further: Decision | None = None
        if not history.num_audited:
            further = (None if self.is_spent(history) else self._spend(history)) or self._close(history)
        if further is None and plan.audit:
            further = audit(plan, history)
        if further is not None:
            return further
        return Wait() if history.running else Finish()

    def is_spent(self, history: History) -> bool:
        """Whether the budget is: the plan's, or else the steps that its gates would cost by their quotas."""
        return is_over_budget(self.plan, history) or history.steps_spent >= self._most_steps

    @cached_property
    def _most_steps(self) -> float:
        if self.plan.budget != Budget():
            return math.inf
        return sum(row.steps for row in cost.expected(self.plan))

    def _spend(self, history: History) -> Promoted | AskCandidate | None:
        asks = may_ask(self.plan, history)
        if asks and history.num_candidates() < _STARTUP:
            return AskCandidate()
        num_decided = history.num_candidates() + sum(gate.num_promoted for gate in history.gates)
        if num_decided % 2:
            by_quota = _by_quota(history)
            if by_quota is not None or asks:
                return by_quota or AskCandidate()
        package = max(self._packages(history, asks), default=None, key=lambda package: package.rate)
        if package is None:  # too few were read to weigh anything
            return AskCandidate() if asks else _first_waiting(history)
        if package.gate is None:
            return AskCandidate()
        first = history.gates[package.gate].waiting[0].entry
        passed = promotion(history, package.gate, first, "value")
        return replace(passed, gain=package.gain, towards=package.stage)

    def _packages(self, history: History, asks: bool) -> Iterator[Package]:
        """All that may run now, of a gate only with the first that waits there."""
        self._last = known = current(history, self._last)
        if known.chain is None:
            return
        standing = sorted(self._standing(history, known))
        if not standing:
            return
        best, second = standing[0], standing[min(1, len(standing) - 1)]
        stages = self.plan.stages
        explained = list(_rising(known.explained(k) for k in range(len(stages))))
        spent = [stage.num_seeds * stage.until_step for stage in stages]
        for k, gate in enumerate(history.gates[:-1]):
            if not gate.waiting or is_full(stages[k], gate):
                continue
            entry = gate.waiting[0].entry
            mean = known.estimate(k, gate.values(entry)).mean
            behind = second[0] - best[0] if entry == best[1] else mean - best[0]
            for to in range(k + 1, len(stages)):
                yield _package(behind, explained[to] - explained[k], spent[to] - spent[k], k, to)
        if asks:
            for to in range(len(stages)):
                yield _package(known.chain.of_a_draw.mean - best[0], explained[to], spent[to], None, to)

    def _standing(self, history: History, known: Extrapolation) -> Iterator[tuple[float, int]]:
        """(estimated final value, index) of what may be the best: the first at gates, those under way, the control."""
        for k, gate in enumerate(history.gates):
            for rank in (*gate.waiting[:2], *gate.held[:2]):
                yield known.estimate(k, gate.values(rank.entry)).mean, rank.entry
        under_way = {member.candidate for member in history.running}
        for candidate in map(history.candidates.__getitem__, under_way):
            if candidate.stage and candidate.is_ranked and not history.is_complete(candidate):
                before = candidate.stage - 1
                yield known.estimate(before, history.gates[before].values(candidate.index)).mean, candidate.index
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
            filled = fill(history, k)
            if filled:
                return filled
            for candidate in (history.control, *history.references):
                if candidate is not None and candidate.stage == k and history.is_complete(candidate):
                    return pass_beside(history, candidate)
        return None


def _by_quota(history: History) -> Promoted | None:
    """Plain halving over steps: of the highest gate that has let fewer on than its quota the best that waits."""
    stages = history.plan.stages
    for k in reversed(range(history.plan.last_stage)):
        gate = history.gates[k]
        if gate.waiting and stages[k + 1].until_step > stages[k].until_step and not is_full(stages[k], gate):
            first = gate.waiting[0].entry
            if gate.rank(first) < gate.quota():
                return promotion(history, k, first, "quota")
    return None


def _first_waiting(history: History) -> Promoted | None:
    """The best at the highest gate where any waits: better than to stand idle."""
    for k in reversed(range(history.plan.last_stage)):
        gate = history.gates[k]
        if gate.waiting and not is_full(history.plan.stages[k], gate):
            return promotion(history, k, gate.waiting[0].entry, "idle")
    return None


def _package(behind: float, explained: float, steps: int, gate: int | None, stage: int) -> Package:
    log_gain = log_expected_gain(behind, math.sqrt(max(explained, 0.0)))
    return Package(log_gain - math.log(steps), gate, stage, math.exp(log_gain))


def _rising(variances: Iterator[float]) -> Iterator[float]:
    """What is known never shrinks as more is read."""
    return accumulate(variances, max)
