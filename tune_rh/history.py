"""What has happened in a run, folded from the events of its journal and kept up to date event by event.

`History.apply` is the only way to change it; `tune_rh.policy` only reads. Any prefix of a journal gives the same
history again. Values inside are minimised: for a maximised objective the sign is turned here.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable
from statistics import fmean
from typing import Literal, NamedTuple

from tune_rh.events import (
    CandidateAdded,
    Event,
    JobEnded,
    JobStarted,
    MemberId,
    Promoted,
    Reported,
    RunCreated,
    SessionEnded,
    SessionStarted,
    SpaceExhausted,
    Tested,
)
from tune_rh.gates import Gate
from tune_rh.plan import SearchPlan
from tune_rh.rules import Curve, ending, is_healthy

Status = Literal["idle", "running", "stopped", "completed", "diverged", "failed"]
TEST, CONTROL, ADVANCE, FRESH = range(4)


class Pending(NamedTuple):
    """A member that may start now; sorts in the order in which members are to start."""

    kind: int
    minus_stage: int
    candidate_index: int
    seed_index: int
    member: MemberId


class Member:
    """A candidate with one seed."""

    def __init__(self, member: MemberId) -> None:
        self.id = member
        self.curve = Curve()
        self.status: Status = "idle"
        self.until_step = 0
        self.reason = ""
        self.diverged = False
        self.tested: Tested | None = None
        self.slot_seconds = 0.0

    @property
    def step(self) -> int:
        """The last step reported."""
        return self.curve.steps[-1] if self.curve.steps else 0

    @property
    def lost(self) -> bool:
        """Diverged or failed: counts as the worst value at a gate."""
        return self.status in ("diverged", "failed")


class Candidate:
    """One config under test, with the members it has so far."""

    def __init__(self, added: CandidateAdded, index: int) -> None:
        self.id = added.candidate
        self.added = added
        self.index = index
        self.stage = 0
        self.members: dict[int, Member] = {}


class History:
    """The state of a run; see the module."""

    def __init__(self, plan: SearchPlan) -> None:
        self.plan = plan
        self.candidates: dict[str, Candidate] = {}
        self.by_digest: dict[str, str] = {}
        self.gates = [Gate(plan.rules.promote) for _ in plan.stages]
        self.incomplete = [0 for _ in plan.stages]
        self.pending: list[Pending] = []
        self.running: dict[MemberId, Member] = {}
        self.num_sampled = 0
        self.space_exhausted = False
        self.max_stage = 0
        self.steps_spent = 0
        self.slot_seconds = 0.0
        self.session = 0
        self.created: RunCreated | None = None
        self._sign = 1.0 if plan.mode == "min" else -1.0
        self._by_index: list[Candidate] = []

    @property
    def control(self) -> Candidate | None:
        """The reference candidate, once it is there."""
        return self._by_index[0] if self._by_index else None

    def candidate_at(self, index: int) -> Candidate:
        """The candidate that came ``index``-th into the search (0: the control)."""
        return self._by_index[index]

    def num_candidates(self) -> int:
        """How many candidates there are, the control left out."""
        return max(0, len(self._by_index) - 1)

    def member(self, member: MemberId) -> Member:
        """The member of that id."""
        return self.candidates[member.candidate].members[member.seed]

    def is_complete(self, candidate: Candidate) -> bool:
        """Whether all seeds of the candidate's present stage are in."""
        gate = self.gates[candidate.stage]
        return gate.control is not None if candidate.index == 0 else gate.has(candidate.index)

    def shown(self, value: float) -> float:
        """A value in the objective's own sign."""
        return self._sign * value

    def apply(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case CandidateAdded():
                self._add(event)
            case Reported():
                self._report(event)
            case JobStarted():
                self._start(event)
            case JobEnded():
                self._end(event)
            case Promoted():
                self._promote(event)
            case Tested():
                member = self.member(MemberId.parse(event.member))
                member.tested = event
                self._spend(member, event.eval_s)
            case SessionStarted():
                self.session = event.session
                self.hand_back_all()
            case SpaceExhausted():
                self.space_exhausted = True
            case RunCreated():
                self.created = event
            case SessionEnded():
                pass

    def _add(self, event: CandidateAdded) -> None:
        candidate = Candidate(event, len(self._by_index))
        self._by_index.append(candidate)
        self.candidates[event.candidate] = candidate
        self.by_digest[event.config_digest] = event.candidate
        self.num_sampled += event.origin == "sampler"
        self.incomplete[0] += 1
        self._require_seeds(candidate)

    def _require_seeds(self, candidate: Candidate) -> None:
        for seed in self.plan.stage_seeds(candidate.stage):
            if seed not in candidate.members:
                candidate.members[seed] = Member(MemberId(candidate.id, seed))
            self._offer(candidate, candidate.members[seed])

    def _offer(self, candidate: Candidate, member: Member) -> None:
        """Put a member on the list of those that may start, if there is something left for it to do."""
        last = candidate.stage == self.plan.last_stage
        kind = None
        if member.status == "idle" and member.step < self.plan.stages[candidate.stage].until_step:
            kind = CONTROL if candidate.index == 0 else ADVANCE if member.step else FRESH
        elif last and member.status in ("stopped", "completed") and member.tested is None:
            kind = TEST
        if kind is not None:
            seed_index = self.plan.seeds.index(member.id.seed)
            insort(self.pending, Pending(kind, -candidate.stage, candidate.index, seed_index, member.id))

    def _start(self, event: JobStarted) -> None:
        member = self.member(MemberId.parse(event.member))
        self.pending = [p for p in self.pending if p.member != member.id]
        if not event.test:
            member.status = "running"
        member.until_step = event.until_step
        self.running[member.id] = member

    def _report(self, event: Reported) -> None:
        member = self.member(MemberId.parse(event.member))
        self._spend(member, event.train_s + event.eval_s)
        member.diverged = event.diverged
        before = member.step
        value = self._sign * event.metrics.get(self.plan.objective, math.nan)
        if member.curve.add(event.step, value, dict(event.metrics)):
            self.steps_spent += event.step - before

    def _spend(self, member: Member, seconds: float) -> None:
        member.slot_seconds += seconds
        self.slot_seconds += seconds

    def _end(self, event: JobEnded) -> None:
        member = self.member(MemberId.parse(event.member))
        self.running.pop(member.id, None)
        member.reason = event.reason
        candidate = self.candidates[member.id.candidate]
        if event.outcome == "interrupted":
            self._hand_back(member)
            return
        if event.outcome == "parked":
            member.status = "idle"
        elif event.outcome != "tested":
            member.status = event.outcome
        self._offer(candidate, member)
        self._arrive(candidate)

    def hand_back_all(self) -> None:
        """The jobs under way are no longer: their driver is gone."""
        for member in list(self.running.values()):
            self._hand_back(member)

    def _hand_back(self, member: Member) -> None:
        """A job ended early. If that was between the member's last report and what follows from it, it follows now."""
        self.running.pop(member.id, None)
        candidate = self.candidates[member.id.candidate]
        if member.status == "running":
            end = ending(self.plan, member.curve, diverged=member.diverged, is_control=candidate.index == 0)
            member.status, member.reason = end or ("idle", member.reason)
        self._offer(candidate, member)
        self._arrive(candidate)

    def _arrive(self, candidate: Candidate) -> None:
        """File the candidate at its gate once every seed of its stage has reached it or ended."""
        if self.is_complete(candidate):
            return
        until = self.plan.stages[candidate.stage].until_step
        members = [candidate.members[seed] for seed in self.plan.stage_seeds(candidate.stage)]
        if any(m.status == "running" or (m.status == "idle" and m.step < until) for m in members):
            return
        values = [None if m.lost or not math.isfinite(m.curve.best) else m.curve.best for m in members]
        gate = self.gates[candidate.stage]
        self.incomplete[candidate.stage] -= 1
        means = self.health(candidate)
        rule = self.plan.rules.promote
        health = means.get(rule.health_metric, math.nan) if rule and rule.health_metric else math.nan
        if candidate.index == 0:
            gate.arrive_control(values, health)
        else:
            last = candidate.stage == self.plan.last_stage
            healthy = last or is_healthy(self.plan.rules.health, means)
            gate.arrive(candidate.index, values, eligible=healthy and any(v is not None for v in values), health=health)

    def health(self, candidate: Candidate) -> dict[str, float]:
        """Mean over the candidate's live members of each metric in their last reports."""
        last = [m.curve.metrics[-1] for m in candidate.members.values() if m.curve.metrics and not m.lost]
        names = set().union(*last) if last else set()
        return {name: fmean(metrics.get(name, math.nan) for metrics in last) for name in names}

    def _promote(self, event: Promoted) -> None:
        candidate = self.candidates[event.candidate]
        if candidate.index:
            self.gates[event.gate].promote(candidate.index)
        candidate.stage = event.gate + 1
        self.max_stage = max(self.max_stage, candidate.stage)
        self.incomplete[candidate.stage] += 1
        self._require_seeds(candidate)
        self._arrive(candidate)


def fold(plan: SearchPlan, events: Iterable[Event]) -> History:
    """The history of ``events`` (any iterable) under ``plan``."""
    history = History(plan)
    for event in events:
        history.apply(event)
    return history
