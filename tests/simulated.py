"""A search in memory: slots, members with closed-form curves and fates, and the policy; no files, no models.

Completion order is random by seed. Every decision is noted with the number of events that it was taken from.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainables.registry import build_config, get_family
from tune_rh import compare, follow_ups
from tune_rh.configs import named_config
from tune_rh.events import (
    CandidateAdded,
    Diagnosed,
    Evaluated,
    Event,
    FollowUpSkipped,
    JobEnded,
    JobStarted,
    MemberId,
    Origin,
    Promoted,
    SessionStarted,
    SpaceExhausted,
    Tested,
)
from tune_rh.history import History
from tune_rh.members import Candidate
from tune_rh.plan import SearchPlan
from tune_rh.policy import (
    AddSeed,
    AskCandidate,
    AskFollowUp,
    Continue,
    Decision,
    Finish,
    Park,
    Promote,
    RunMember,
    Verdict,
    Wait,
    next_job,
    verdict,
)

Metrics = Callable[[int, int, int], dict[str, float]]
Fate = tuple[Literal["fail", "diverge"], int]


@dataclass(frozen=True)
class Decided:
    """``decision`` was taken after ``num_events`` events, for a slot that held ``prefer``."""

    num_events: int
    prefer: MemberId | None
    decision: Decision


class Simulation:
    """One search.

    Args:
        plan: what to search.
        metrics: (candidate's index, seed, step) -> what is reported.
        fates: (candidate's index, seed) -> how and at which step the member is lost.
        slots: jobs at a time.
        order: seed of the order in which running members report.
        space: how many configs there are to draw.
        refused: numbers of follow-ups whose config is refused.
    """

    def __init__(
        self,
        plan: SearchPlan,
        metrics: Metrics,
        *,
        fates: Mapping[tuple[int, int], Fate] | None = None,
        slots: int = 1,
        order: int = 0,
        space: int = 10**9,
        refused: Collection[int] = (),
    ) -> None:
        self.plan, self.metrics, self.fates = plan, metrics, fates or {}
        self.slots, self.space, self.refused = slots, space, refused
        self.history = History(plan)
        self.events: list[Event] = []
        self.decisions: list[Decided] = []
        self.verdicts: list[tuple[int, MemberId, bool, Verdict]] = []
        self._random = random.Random(order)
        self._diagnosing: set[MemberId] = set()

    def run(self) -> Simulation:
        """Until the policy says that it is over."""
        self.record(SessionStarted(1, 0.0, "simulated", self.slots))
        while self.fill():
            self.advance(self._random.choice(sorted(self.history.running)))
            assert len(self.events) < 100_000, "the search does not end"
        return self

    def record(self, event: Event) -> None:
        """Take ``event`` in."""
        self.events.append(event)
        self.history.apply(event)

    def fill(self) -> bool:
        """Give every free slot a job; False once the search is over."""
        while len(self.history.running) < self.slots:
            decision = self.decide(None)
            if isinstance(decision, AskCandidate):
                self.ask()
            elif isinstance(decision, AskFollowUp):
                self.follow_up(decision)
            elif isinstance(decision, RunMember):
                self.start(decision)
            else:
                break
        else:
            return True
        over = isinstance(decision, Finish)
        assert over == (not self.history.running), decision
        return not over

    def decide(self, prefer: MemberId | None) -> Decision:
        """What comes next; promotions are recorded on the way."""
        while True:
            decision = next_job(self.plan, self.history, prefer)
            self.decisions.append(Decided(len(self.events), prefer, decision))
            if isinstance(decision, Wait | Finish):
                assert isinstance(decision, Wait) == bool(self.history.running)
            if not isinstance(decision, Promote | AddSeed):
                return decision
            self.record(decision.event)

    def ask(self) -> None:
        """A new candidate: the control first, then references."""
        index, num_references = len(self.history.candidates), len(self.plan.references)
        if self.plan.compare is not None:
            self.record(self._compared(index))
            return
        if index > self.space + num_references:
            self.record(SpaceExhausted(1))
            return
        origin: Origin = "control" if not index else "reference" if index <= num_references else "sampler"
        enters = len(self.plan.stages) if origin == "reference" else 0
        self.record(CandidateAdded(f"c{index:04d}", {"index": index}, f"digest-{index}", origin, enters=enters))

    def follow_up(self, asked: AskFollowUp) -> None:
        """A candidate around a winner, or a note that there is no such config."""
        change, index = follow_ups.changes(self.plan)[asked.number], len(self.history.candidates)
        label = follow_ups.label(asked.parent, change.fields)
        if asked.number in self.refused:
            self.record(FollowUpSkipped(asked.parent, label, "refused"))
            return
        facts: dict[str, Any] = {"label": label, "parent": asked.parent, "enters": change.follow_up.enters}
        self.record(CandidateAdded(f"c{index:04d}", {"index": index}, f"digest-{index}", "follow_up", **facts))

    def _compared(self, index: int) -> CandidateAdded:
        """Of a comparison: A, then B, then the probe that is wanted."""
        if index < 2:
            label, origin = (self.plan.control, *self.plan.presets)[index], ("control", "preset")[index]
            config, patience = named_config(self.plan, label)
        else:
            keys = compare.next_probe(self.history)
            assert keys is not None
            fields = compare.probe_fields(self.history, keys)
            patience = fields.pop(compare.PATIENCE, None)
            label, origin = " ".join(sorted(keys)), "probe"
            config = build_config(get_family(self.plan.family), fields)
        assert not self.history.knows(config.digest(), patience)
        fields = config.model_dump(mode="json")
        return CandidateAdded(f"c{index:04d}", fields, config.digest(), origin, label, patience_steps=patience)  # type: ignore[arg-type]

    def start(self, job: RunMember) -> None:
        """Put a member in a slot."""
        if job.purpose == "diagnose":
            self._diagnosing.add(job.member)
        self.record(JobStarted(job.member, job.stage, job.until_step, 0.0, job.purpose))

    def advance(self, member: MemberId) -> None:
        """The member's next report, and what follows from it."""
        state = self.history.member(member)
        if member in self._diagnosing:
            self._diagnosing.remove(member)
            self.record(Diagnosed(member, state.curve.best_step, {}, 0.25))
            self.end(member, "diagnosed")
            return
        if state.status != "running":
            self.record(Tested(member, state.curve.best_step, {"test_loss": 0.0}, 0.5))
            self.end(member, "tested")
            return
        step = state.step + self.plan.eval_every
        index = self.history.candidates[member.candidate].index
        how, when = self.fates.get((index, member.seed), ("none", 10**9))
        if how == "fail" and step >= when:
            self.end(member, "failed")
            return
        diverged = how == "diverge" and step >= when
        metrics = {} if diverged else self.metrics(index, member.seed, step)
        self.record(Evaluated(member, step, {**metrics, "train_loss": 0.0}, 1.0, 0.5, diverged=diverged))
        said = verdict(self.plan, self.history, member)
        self.verdicts.append((len(self.events), member, diverged, said))
        if isinstance(said, Continue):
            assert said.until_step == state.until_step
        elif isinstance(said, Park):
            self.end(member, "parked", said.reason)
        else:
            self.end(member, said.outcome, said.reason)

    def end(self, member: MemberId, outcome: str, reason: str = "") -> None:
        """The slot is free again; it may go on with the same member."""
        self.record(JobEnded(member, outcome, reason, 0.0))  # type: ignore[arg-type]
        decision = self.decide(member)
        if isinstance(decision, RunMember) and decision.member == member:
            self.start(decision)

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
    assert len(history.references) == len(plan.references)
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
        competed = [c for c in sim.others() if c.added.enters <= k and c.id in went_on]
        assert {c.id for c in competed} == {c.id for c in sim.others() if c.stage > k >= c.added.enters}
        assert (gate.num_promoted, gate.num_lost_later) == (len(competed), sum(map(history.is_out, competed)))
        through = [c for c in competed if c.id not in audited]
        assert stage.at_most is None or len(through) <= stage.at_most
        dead = sum(map(history.is_out, through))
        if not capped:
            assert not gate.waiting or len(through) - dead >= min(stage.at_least, stage.top or stage.at_least)
        if stage.top is not None:
            assert len(through) <= stage.top + dead
            assert not gate.waiting or len(through) >= min(stage.top, stage.at_most or stage.top)
        assert not gate.passing
        assert gate.guests.keys() == {c.index for c in history.candidates.values() if c.stage >= k < c.added.enters}
    finished = [c for c in sim.others() if c.stage == plan.last_stage and not all(m.lost for m in c.members.values())]
    if any(gate.waiting for gate in history.gates[:-1]) and not capped:
        assert finished


def check_follow_ups(sim: Simulation) -> None:
    """Every follow-up was made or passed over, unless the budget was spent; all of a table around one winner."""
    plan, history = sim.plan, sim.history
    changes, followed = follow_ups.changes(plan), history.followed
    assert len(followed) == len(history.follow_ups) + len(history.skipped)
    assert len(followed) == len(changes) or history.is_over_budget
    tables = [change.table for change in changes[: len(followed)]]
    assert len(set(zip(tables, followed, strict=True))) == len(set(tables))
    for parent in followed:
        assert not history.candidates[parent].is_reference
    for promotion in sim.promoted():
        enters = history.candidates[promotion.candidate].added.enters
        assert (promotion.reason in ("follow_up", "reference")) == (promotion.gate < enters)
