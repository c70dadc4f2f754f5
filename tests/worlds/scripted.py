"""Searches in memory on the real session: slots, and members with closed-form curves and fates; no files, no models.

Completion order is random by seed. Every decision is noted with the number of events that it was taken from.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from tests.worlds.plans import fold
from trainables.worker.report import Report
from tune_rh.decide.follow_ups import is_over_budget
from tune_rh.decide.scheduler import (
    AskFollowUp,
    Continue,
    Decision,
    Finish,
    RunMember,
    Scheduler,
    Verdict,
    Wait,
    scheduler_of,
)
from tune_rh.plan import follow_ups
from tune_rh.plan.kinds import Search
from tune_rh.plan.schema import Plan
from tune_rh.record.events import (
    CandidateAdded,
    Diagnosed,
    Evaluated,
    Event,
    FollowUpSkipped,
    MemberId,
    Origin,
    Promoted,
    SpaceExhausted,
    Tested,
)
from tune_rh.record.history import History
from tune_rh.record.members import Candidate, candidate_id
from tune_rh.run.session import Session, Source

Metrics = Callable[[int, int, int], dict[str, float]]
Fate = tuple[Literal["fail", "diverge"], int]
Diagnosis = Callable[[Candidate], Mapping[str, str] | None]
"""What a diagnosis of the candidate says; None: it crashes."""


@dataclass(frozen=True)
class Decided:
    """``decision`` was taken after ``num_events`` events, for a slot that held ``prefer``."""

    num_events: int
    prefer: MemberId | None
    decision: Decision


class Recorded:
    """A scheduler whose decisions and verdicts are kept."""

    def __init__(self, scheduler: Scheduler, events: list[Event]) -> None:
        self.decisions: list[Decided] = []
        self.verdicts: list[tuple[int, MemberId, bool, Verdict]] = []
        self._scheduler, self._events = scheduler, events

    def next(self, history: History, prefer: MemberId | None = None) -> Decision:
        """See `Scheduler`. It waits only while something runs."""
        decision = self._scheduler.next(history, prefer)
        self.decisions.append(Decided(len(self._events), prefer, decision))
        if isinstance(decision, Wait | Finish):
            assert isinstance(decision, Wait) == bool(history.running), decision
        return decision

    def verdict(self, history: History, member: MemberId) -> Verdict:
        """See `Scheduler`."""
        verdict, state = self._scheduler.verdict(history, member), history.member(member)
        self.verdicts.append((len(self._events), member, state.diverged, verdict))
        assert not isinstance(verdict, Continue) or verdict.until_step == state.until_step
        return verdict


def num_references(plan: Plan) -> int:
    """How many configs the plan runs beside the control, to be compared with."""
    return sum(origin == "reference" for _, origin in plan.named)


class ScriptedSource:
    """Candidates that are but numbered: the control first, then references.

    Args:
        plan: what is searched.
        space: how many configs there are to draw.
        refused: numbers of follow-ups whose config is refused.
    """

    def __init__(self, plan: Plan, *, space: int = 10**9, refused: Collection[int] = ()) -> None:
        self.plan, self.space, self.refused = plan, space, refused

    def candidate(self, history: History) -> CandidateAdded | SpaceExhausted:
        """See `Source`."""
        index, beside = len(history.candidates), num_references(self.plan)
        if index > self.space + beside:
            return SpaceExhausted(1)
        origin: Origin = "control" if not index else "reference" if index <= beside else "sampler"
        ranked_from = len(self.plan.stages) if origin == "reference" else 0
        return self._numbered(history, origin, ranked_from=ranked_from)

    def follow_up(self, history: History, asked: AskFollowUp) -> CandidateAdded | FollowUpSkipped:
        """See `Source`."""
        assert isinstance(self.plan, Search)
        change = follow_ups.changes(self.plan)[asked.number]
        label = follow_ups.label(asked.parent, change.fields)
        if asked.number in self.refused:
            return FollowUpSkipped(asked.parent, label, "refused")
        ranked_from = change.follow_up.enters
        return self._numbered(history, "follow_up", label=label, parent=asked.parent, ranked_from=ranked_from)

    def _numbered(self, history: History, origin: Origin, **facts: Any) -> CandidateAdded:
        index = len(history.candidates)
        return CandidateAdded(candidate_id(index), {"index": index}, f"digest-{index}", origin, **facts)


def next_job(plan: Plan, history: History, prefer: MemberId | None = None) -> Decision:
    """What the plan's scheduler has a free slot do."""
    return scheduler_of(plan).next(history, prefer)


def verdict(plan: Plan, history: History, member: MemberId) -> Verdict:
    """What the plan's scheduler says to a report."""
    return scheduler_of(plan).verdict(history, member)


def healthy(_candidate: Candidate) -> Mapping[str, str]:
    """A diagnosis that finds nothing."""
    return {}


class Simulation:
    """One search: a runner, and the session that it drives.

    Args:
        plan: what to search.
        metrics: (candidate's index, seed, step) -> what is reported.
        fates: (candidate's index, seed) -> how and at which step the member is lost.
        slots: jobs at a time.
        order: seed of the order in which running members report; None: always the first.
        source: where candidates come from.
        diagnosis: what is found in a candidate.
        past: events of a session before this one, whose driver died.
    """

    name = "scripted"

    def __init__(
        self,
        plan: Plan,
        metrics: Any,
        *,
        fates: Mapping[tuple[int, int], Fate] | None = None,
        slots: int = 1,
        order: int | None = 0,
        source: Source | None = None,
        diagnosis: Diagnosis = healthy,
        past: Iterable[Event] = (),
    ) -> None:
        self.plan, self.metrics, self.fates, self.slots = plan, metrics, fates or {}, slots
        self.source, self.diagnosis = source or ScriptedSource(plan), diagnosis
        self.events = list(past)
        self.history = fold(plan, self.events)
        self.scheduler = Recorded(scheduler_of(plan), self.events)
        self._random = None if order is None else random.Random(order)
        self._diagnosing: set[MemberId] = set()
        self.session = Session(
            plan,
            self.history,
            self.events.append,
            self.source,
            lambda: 0.0,
            runner=self.name,
            slots=slots,
            scheduler=self.scheduler,
        )

    @property
    def decisions(self) -> list[Decided]:
        """Every decision that was taken, in order."""
        return self.scheduler.decisions

    @property
    def verdicts(self) -> list[tuple[int, MemberId, bool, Verdict]]:
        """(number of events, member, whether it diverged, verdict), in order."""
        return self.scheduler.verdicts

    def run(self) -> Self:
        """Until the session says that it is over."""
        while self.fill():
            running = sorted(self.history.running)
            self.advance(self._random.choice(running) if self._random else running[0])
            assert len(self.events) < 100_000, "the search does not end"
        return self

    def fill(self) -> bool:
        """Give every free slot a job; False once the search is over."""
        decision = self._take()
        while isinstance(decision, RunMember):
            decision = self._take()
        return not isinstance(decision, Finish)

    def advance(self, member: MemberId) -> None:
        """The member's next report, or its failure; its slot goes on with it, or with the next job."""
        report = self._report(member)
        if report is None:
            self.session.on_failure(member, "scripted")
            self._take(member)
        elif not self.session.on_report(report):
            self._take(member)

    def taken_over(self, cut: int, order: int | None = None) -> Self:
        """The same search after its driver died at event ``cut`` and another one took over; run to its end."""
        again = type(self)(
            self.plan,
            self.metrics,
            fates=self.fates,
            slots=self.slots,
            order=order,
            source=self.source,
            diagnosis=self.diagnosis,
            past=self.events[:cut],
        )
        return again.run()

    def reported(self, candidate: Candidate, seed: int, step: int) -> dict[str, float]:
        """The metrics of a member at a step."""
        reported: dict[str, float] = self.metrics(candidate.index, seed, step)
        return reported

    def _take(self, prefer: MemberId | None = None) -> RunMember | Wait | Finish:
        decision = self.session.next_job(prefer)
        if isinstance(decision, RunMember) and decision.purpose == "diagnose":
            self._diagnosing.add(decision.member)
        return decision

    def _report(self, member: MemberId) -> Report | None:
        """What the member says next; None: it fails."""
        state, candidate = self.history.member(member), self.history.candidates[member.candidate]
        if member in self._diagnosing:
            self._diagnosing.remove(member)
            verdicts = self.diagnosis(candidate)
            return None if verdicts is None else Diagnosed(member, state.curve.best_step, verdicts, 0.25)
        if state.status != "running":
            return Tested(member, state.curve.best_step, {"test_loss": 0.0}, 0.5)
        step = state.step + self.plan.eval_every
        how, when = self.fates.get((candidate.index, member.seed), ("none", 10**9))
        if how == "fail" and step >= when:
            return None
        diverged = how == "diverge" and step >= when
        metrics = {} if diverged else self.reported(candidate, member.seed, step)
        return Evaluated(member, step, {**metrics, "train_loss": 0.0}, 1.0, 0.5, diverged=diverged)

    def histories_at_rest(self) -> Iterator[History]:
        """The one history, grown on, at each moment at which the policy waited or finished."""
        history = History(self.plan)
        rests = {d.num_events for d in self.decisions if isinstance(d.decision, Wait | Finish)}
        for num, event in enumerate(self.events, start=1):
            history.apply(event)
            if num in rests:
                yield history

    def others(self) -> list[Candidate]:
        """All candidates but the control and references."""
        return [c for c in self.history.candidates.values() if c.index and not c.is_reference]

    def promoted(self) -> list[Promoted]:
        """The promotions, in order."""
        return [e for e in self.events if isinstance(e, Promoted)]


def curve(index: int, seed: int, step: int) -> dict[str, float]:
    """A falling curve whose level is a function of the candidate; few levels, so that some tie. The pulse may fail."""
    level = 1.0 if index == 0 else random.Random(index).randint(1, 12) / 8
    wobble = random.Random(f"{index} {seed}").randint(-2, 2) / 64
    pulse = random.Random(f"{index} {seed} {step}").randint(0, 5) / 4
    return {"val_loss": level + wobble + math.exp(-step / 40), "health": 1.0, "pulse": pulse}


SEEDS = (7, 42, 1337)
STAGES = [{"until_step": 20, "num_seeds": 2}, {"until_step": 60, "num_seeds": 2}, {"until_step": 120, "num_seeds": 3}]


def staged(**first: Any) -> list[dict[str, Any]]:
    return [{**STAGES[0], **first}, *STAGES[1:]]


def fates_by_seed(seed: int, share: float, num: int = 30) -> dict[tuple[int, int], Fate]:
    rng = random.Random(seed)
    return {
        (index, member): (rng.choice(["fail", "diverge"]), 10 * rng.randint(1, 12))
        for index in range(num)
        for member in SEEDS
        if rng.random() < share
    }


def check_accounts(sim: Simulation) -> None:
    """What holds at the end of every search."""
    plan, history = sim.plan, sim.history
    last = plan.last_stage
    assert not history.running
    assert not history.pending
    assert history.incomplete == [0] * len(plan.stages)
    for candidate in history.candidates.values():
        assert history.is_complete(candidate), candidate.id
        until = plan.stages[candidate.stage].until_step
        for seed in plan.stage_seeds(candidate.stage):
            member = candidate.members[seed]
            assert member.lost or member.status == "stopped" or member.step == until
            assert (member.tested is not None) == (candidate.stage == last and not member.lost)
    assert history.control is not None
    assert len(history.references) == num_references(plan)
    for candidate in (history.control, *history.references):
        assert candidate.stage == last
        assert candidate.members.keys() == set(plan.seeds[: plan.stages[-1].num_seeds])
        assert all(m.lost or m.step == plan.stages[-1].until_step for m in candidate.members.values())
        assert not any(m.status == "stopped" for m in candidate.members.values())
    check_gates(sim)
    check_follow_ups(sim)


def check_gates(sim: Simulation) -> None:
    """Somebody gets to the end if anybody can, and every gate keeps to its bounds."""
    plan, history = sim.plan, sim.history
    capped = any(stage.at_most is not None for stage in plan.stages)
    for k, (stage, gate) in enumerate(zip(plan.stages[:-1], history.gates, strict=False)):
        went_on = {p.candidate for p in sim.promoted() if p.gate == k}
        audited = {p.candidate for p in sim.promoted() if p.gate == k and p.reason == "audit"}
        ranked = [c for c in sim.others() if c.added.ranked_from <= k and c.id in went_on]
        assert {c.id for c in ranked} == {c.id for c in sim.others() if c.stage > k >= c.added.ranked_from}
        assert (gate.num_promoted, gate.num_lost_later) == (len(ranked), sum(map(history.is_out, ranked)))
        through = [c for c in ranked if c.id not in audited]
        assert stage.at_most is None or len(through) <= stage.at_most
        dead = sum(map(history.is_out, through))
        if not capped:
            assert not gate.waiting or len(through) - dead >= min(stage.at_least, stage.top or stage.at_least)
        if stage.top is not None:
            assert len(through) <= stage.top + dead
            assert not gate.waiting or len(through) >= min(stage.top, stage.at_most or stage.top)
        assert not gate.passing
        arrived = [c for c in history.candidates.values() if c.stage >= k]
        assert gate.unranked.keys() - {0} == {c.index for c in arrived if k < c.added.ranked_from}
    finished = [c for c in sim.others() if c.stage == plan.last_stage and not all(m.lost for m in c.members.values())]
    if any(gate.waiting for gate in history.gates[:-1]) and not capped:
        assert finished


def check_follow_ups(sim: Simulation) -> None:
    """Every follow-up was made or passed over, unless the budget was spent; all of a table around one winner."""
    plan, history = sim.plan, sim.history
    assert isinstance(plan, Search)
    changes, followed = follow_ups.changes(plan), history.followed
    assert len(followed) == len(history.follow_ups) + len(history.skipped)
    assert len(followed) == len(changes) or is_over_budget(plan, history)
    tables = [change.table for change in changes[: len(followed)]]
    assert len(set(zip(tables, followed, strict=True))) == len(set(tables))
    for parent in followed:
        assert not history.candidates[parent].is_reference
    for promotion in sim.promoted():
        ranked_from = history.candidates[promotion.candidate].added.ranked_from
        assert (promotion.reason in ("follow_up", "reference")) == (promotion.gate < ranked_from)
