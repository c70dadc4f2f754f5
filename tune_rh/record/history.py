"""What has happened in a run, folded from the events of its journal and kept up to date event by event.

`History.apply` is the only way to change it; `tune_rh.decide.halving` only reads. Any prefix of a journal gives the
same history again. Values inside are minimised: for a maximised objective the sign is turned here.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from analysis.stats.scores import Values
from analysis.view import Decision
from tune_rh.plan.schema import Plan
from tune_rh.record import events
from tune_rh.record.eligibility import bar, bar_by_health, health
from tune_rh.record.failure import Losses
from tune_rh.record.gate import Gate, change_terms, learn_shares
from tune_rh.record.members import Candidate, Member, Pending, kind_of_next
from tune_rh.record.rules import ending


class History:
    """The state of a run; see the module."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.candidates: dict[str, Candidate] = {}
        self._known: dict[tuple[str, int | None], str] = {}
        self.gates = [Gate(plan, stage) for stage in range(len(plan.stages))]
        self.incomplete = [0 for _ in plan.stages]  # ranked entries on their way to each gate; at 0 it can be closed
        self.pending: list[Pending] = []  # sorted; a member stands in it once, and not while it runs
        self.running: dict[events.MemberId, Member] = {}
        self.references, self.follow_ups = list[Candidate](), list[Candidate]()
        self.followed: list[str] = []  # of each of the plan's follow-ups so far the winner, made or passed over
        self.skipped: list[events.FollowUpSkipped] = []
        self.num_sampled = self.num_audited = 0
        self.space_exhausted = False
        self.passed_over = Counter[str]()  # draws that were no valid config, by reason
        self.max_stage = self.steps_spent = 0
        self.slot_seconds = 0.0
        self.decisions: list[Decision] = []
        self.losses = Losses()
        self.session = self.slots = self.num_events = 0
        self.ended = ""  # how the last session ended; empty while it runs, or if it was killed
        self.created: events.RunCreated | None = None
        self.accepted: list[events.FindingAccepted] = []
        self._sign = 1.0 if plan.mode == "min" else -1.0
        self._by_index: list[Candidate] = []

    @property
    def control(self) -> Candidate | None:
        """The reference candidate, once it is there."""
        return self._by_index[0] if self._by_index and self.plan.has_control else None

    def candidate_at(self, index: int) -> Candidate:
        """The candidate of that index: 0 is the control, others count from 1."""
        return self._by_index[index - (not self.plan.has_control)]

    def entry_at(self, index: int) -> tuple[Candidate, int | None]:
        """What a gate's entry ``index`` stands for: a candidate, or in a race the member of that seed."""
        if self.plan.members_compete:
            return self._by_index[0], self.plan.seeds[index]
        return self.candidate_at(index), None

    def num_candidates(self) -> int:
        """How many candidates there are; the control, references and follow-ups left out."""
        return max(0, len(self._by_index) - self.plan.has_control - len(self.references) - len(self.follow_ups))

    def is_out(self, candidate: Candidate) -> bool:
        """Whether the candidate has come to the gate of its stage and may go no further."""
        return self.gates[candidate.stage].is_out(candidate.index)

    def named(self, config_digest: str, patience_steps: int | None = None) -> str | None:
        """The first candidate with that config (and that patience of its own)."""
        return self._known.get((config_digest, patience_steps))

    def member(self, member: events.MemberId) -> Member:
        """The member of that id."""
        return self.candidates[member.candidate].members[member.seed]

    def is_complete(self, candidate: Candidate) -> bool:
        """Whether all seeds of the candidate's present stage are in."""
        return self.gates[candidate.stage].has(candidate.index)

    def shown(self, value: float) -> float:
        """A value in the objective's own sign."""
        return self._sign * value

    def apply(self, event: events.Event) -> None:
        """Take one event in."""
        self.num_events += 1
        if (decision := events.as_decision(event)) is not None:
            self.decisions.append(decision)
        match event:
            case events.CandidateAdded():
                self._add(event)
            case events.Evaluated():
                self._report(event)
            case events.JobStarted():
                self._start(event)
            case events.JobRetried():
                self.losses.add(event)
            case events.JobEnded():
                self._end(event)
            case events.Halted():
                self._begin_again(event.members)
            case events.Promoted():
                (self._promote if event.seed is None else self._promote_member)(event)
            case events.SeedAdded():
                self._add_seed(event)
            case events.Tested():
                member = self.member(event.member)
                member.tested = event
                self._spend(member, event.eval_s)
            case events.Diagnosed():
                self._diagnose(event)
            case events.SessionStarted():
                self.session, self.slots, self.ended = event.session, event.slots, ""
                self.hand_back_all()
            case events.SlotsChanged():
                self.slots = event.slots
            case events.NodeLost():
                self.losses.gone.append(event.node)
            case events.SessionEnded():
                self.ended = event.reason
                self.hand_back_all()
            case events.SpaceExhausted():
                self.space_exhausted = True
                self.passed_over.update(event.passed_over)
            case events.FollowUpSkipped():
                self.followed.append(event.parent)
                self.skipped.append(event)
            case events.RunCreated():
                self.created = event
            case events.FindingAccepted():
                self.accepted.append(event)
            case events.PlanChanged():
                self._change_plan(event)

    def _change_plan(self, event: events.PlanChanged) -> None:
        """The plan grows; see `tune_rh.record.extend` for what may change."""
        self.hand_back_all()
        before, self.plan = self.plan, self.plan.with_changes(event.changes)
        change_terms(self.gates, self.plan)
        members = [member for candidate in self._by_index for member in candidate.members.values()]
        for member in members:
            member.reopen(before, self.plan)
        for stage in range(len(before.stages), len(self.plan.stages)):
            self.gates.append(Gate(self.plan, stage))
            self.incomplete.append(0)
            self._open_gate(stage - 1)
        self.pending = []
        for member in members:
            self._offer(self.candidates[member.id.candidate], member)

    def _open_gate(self, stage: int) -> None:
        """A gate begins anew: those that have come to the end of its stage arrive there again."""
        before, self.gates[stage] = self.gates[stage], Gate(self.plan, stage)
        arrived = [c for c in self._by_index if c.stage == stage and before.has(c.index)]
        self.incomplete[stage] += sum(candidate.is_ranked for candidate in arrived)
        for candidate in arrived:
            self._lose(candidate.added.ranked_from, stage, -before.is_out(candidate.index))
        for candidate in arrived:
            self._arrive(candidate, next(iter(candidate.members.values())))

    def _add(self, event: events.CandidateAdded) -> None:
        candidate = Candidate(event, len(self._by_index) + (not self.plan.has_control))
        self._by_index.append(candidate)
        self.candidates[event.candidate] = candidate
        self._known.setdefault((event.config_digest, event.patience_steps), event.candidate)
        self.num_sampled += event.origin == "sampler"
        self.passed_over.update(event.passed_over)
        if event.origin == "reference":
            self.references.append(candidate)
        elif event.origin == "follow_up":
            assert event.parent is not None
            self.follow_ups.append(candidate)
            self.followed.append(event.parent)
        self.incomplete[0] += len(self.plan.seeds) if self.plan.members_compete else candidate.is_ranked
        for seed in self.plan.stage_seeds(0):
            self._require(candidate, seed)

    def _require(self, candidate: Candidate, seed: int) -> None:
        """The member of that seed is to reach the end of the candidate's stage."""
        member = candidate.members.setdefault(seed, Member(events.MemberId(candidate.id, seed), self._sign))
        member.stage = candidate.stage
        if member.status == "idle":  # it may have been read on test, at the end of what was the last stage then
            member.tested = member.diagnosed = None
        self._offer(candidate, member)

    def _offer(self, candidate: Candidate, member: Member) -> None:
        """Put a member on the list of those that may start, if there is something left for it to do."""
        kind = kind_of_next(self.plan, candidate, member, candidate is self.control and self.plan.protects_control)
        if kind is not None:
            turn = self.plan.turn(candidate.index, self.plan.seeds.index(member.id.seed))
            insort(self.pending, Pending(kind, -member.stage, *turn, member.id))

    def _start(self, event: events.JobStarted) -> None:
        member = self.member(event.member)
        self.pending = [p for p in self.pending if p.member != member.id]
        if event.purpose == "train":
            member.status = "running"
        member.until_step = event.until_step
        self.running[member.id] = member
        self.losses.begin(member.id)

    def _report(self, event: events.Evaluated) -> None:
        member = self.member(event.member)
        self._spend(member, event.train_s + event.eval_s + event.repeated_s)
        member.diverged = event.diverged
        before = member.step
        value = self._sign * event.metrics.get(self.plan.objective, math.nan)
        if member.curve.add(event.step, value, event.metrics, event.findings):  # a repeated step is spent once
            self.steps_spent += event.step - before
            member.reports.append(event, member.stage, member.slot_seconds, self.steps_spent, self.slot_seconds)

    def _spend(self, member: Member, seconds: float) -> None:
        member.slot_seconds += seconds
        self.slot_seconds += seconds

    def _end(self, event: events.JobEnded) -> None:
        member = self.member(event.member)
        self.running.pop(member.id, None)
        candidate = self.candidates[member.id.candidate]
        if event.outcome == "interrupted":
            self._hand_back(member)
            return
        kind: str = event.outcome
        if event.outcome == "failed" and candidate.required_check == "pending":
            candidate.required_check, kind = "passed", "not diagnosed"  # a crash says nothing against the candidate
        elif event.outcome == "failed" and member.tested is not None:
            # Its training is whole, only its diagnosis failed: it is not diagnosed again.
            member.diagnosed, kind = events.Diagnosed(event.member, member.step, {}, 0.0), "not diagnosed"
        elif event.outcome == "failed" and member.status in ("stopped", "completed"):
            # Only the reading of test failed, from which nothing is decided.
            member.tested, kind = events.Tested(event.member, member.step, {}, 0.0), "not tested"
        elif event.outcome != "tested" and event.outcome != "diagnosed":
            member.settle("idle" if event.outcome == "parked" else event.outcome, event.reason)
        if kind in ("stopped", "diverged", "failed", "not tested", "not diagnosed"):
            self.decisions.append(Decision(kind, candidate.id, member.stage, event.reason, member.id.seed))
        # Offered first: when it has arrived it may be offered once more, to be checked.
        self._offer(candidate, member)
        self._arrive(candidate, member)

    def _begin_again(self, members: Sequence[events.MemberId]) -> None:
        """Those of ``members`` that failed have not: none but they, the control and references came to a gate."""
        failed = {member.id: member for member in map(self.member, members) if member.begin_again()}
        self.decisions = [one for one in self.decisions if (one.candidate, one.seed) not in failed]
        if failed:
            self._open_gate(0)
        for member in failed.values():
            self._offer(self.candidates[member.id.candidate], member)

    def hand_back_all(self) -> None:
        """The jobs under way are no longer: their driver is gone."""
        for member in list(self.running.values()):
            self._hand_back(member)

    def _hand_back(self, member: Member) -> None:
        """A job ended early. If that was between the member's last report and what follows from it, it follows now."""
        self.running.pop(member.id, None)
        candidate = self.candidates[member.id.candidate]
        if member.status == "running":
            member.settle(*(self.ending(member) or ("idle", member.reason)))
        self._offer(candidate, member)
        self._arrive(candidate, member)

    def ending(self, member: Member) -> tuple[Literal["diverged", "completed", "stopped"], str] | None:
        """How a running member ends with its last report, and why; None if it goes on or waits at a gate."""
        candidate = self.candidates[member.id.candidate]
        protected = self.plan.protects_control and (candidate is self.control or candidate.is_reference)
        return ending(self.plan, member.curve, candidate.added.patience_steps, member.diverged, protected)

    def _arrive(self, candidate: Candidate, member: Member) -> None:
        """File the candidate (in a race the member) at its gate once every seed there has reached it or ended."""
        if self.plan.members_compete:
            self._arrive_member(member)
            return
        if self.is_complete(candidate) or candidate.required_check == "pending":
            return
        seeds = self.plan.stage_seeds(candidate.stage)
        if candidate.extra_seed is not None:
            seeds = (*seeds, candidate.extra_seed)
        members = [candidate.members[seed] for seed in seeds]
        gate = self.gates[candidate.stage]
        if not all(map(self.has_reached, members)) or self._waits_for_control(candidate):
            return
        values = {m.id.seed: m.value for m in members}
        self.incomplete[candidate.stage] -= candidate.is_ranked
        if candidate is self.control:
            gate.arrive_control(values, health(gate.rule, members))
            if self.plan.gap is not None:  # those that came before it have waited for it
                for other in self._by_index[1:]:
                    if other.stage == candidate.stage:
                        self._arrive(other, other.members[seeds[0]])
        elif candidate.is_reference:
            gate.arrive_reference(candidate.index, values)
        else:
            self._arrive_candidate(candidate, members, values)

    def _arrive_candidate(self, candidate: Candidate, members: Sequence[Member], values: Values) -> None:
        gate = self.gates[candidate.stage]
        candidate.barred = bar(self.plan, candidate, members, values, self.control, gate.control)
        eligible = candidate.may_pass and any(value is not None for value in values.values())
        if candidate.is_ranked:
            gate.arrive(candidate.index, values, eligible=eligible, health=health(gate.rule, members))
        else:
            gate.arrive_unranked(candidate.index, values, eligible=eligible)
        if not eligible:
            self._lose(candidate.added.ranked_from, candidate.stage)
        elif candidate.required_check == "none" and self.plan.require and candidate.stage == self.plan.last_stage - 1:
            self._require_check(candidate, members)
        if candidate.is_ranked:
            learn_shares(self.gates, candidate.stage)

    def _lose(self, ranked_from: int, stage: int, num: int = 1) -> None:
        """A candidate that passed the gates from ``ranked_from`` on by its rank goes no further than ``stage``."""
        for passed in self.gates[ranked_from:stage]:
            passed.num_lost_later += num

    def _require_check(self, candidate: Candidate, members: Sequence[Member]) -> None:
        """The candidate's best member at the gate is diagnosed before it may pass the gate to the last stage."""
        known = [m for m in members if m.value is not None]
        best = min(known, key=lambda m: (m.curve.best, self.plan.seeds.index(m.id.seed)))
        candidate.required_check, candidate.check_seed = "pending", best.id.seed
        self.gates[candidate.stage].hold(candidate.index)
        self.incomplete[candidate.stage] += candidate.is_ranked
        self._offer(candidate, best)

    def _diagnose(self, event: events.Diagnosed) -> None:
        member = self.member(event.member)
        candidate = self.candidates[member.id.candidate]
        self._spend(member, event.seconds)
        if candidate.required_check == "pending":
            failed = any(event.verdicts.get(name) == "fail" for name in self.plan.require)
            candidate.required_check = "failed" if failed else "passed"
        else:
            member.diagnosed = event

    def has_reached(self, member: Member) -> bool:
        """Whether the member stands at the end of its stage, or has ended before."""
        if member.status == "idle":
            return member.step >= self.plan.stages[member.stage].until_step
        return member.status != "running"

    def _arrive_member(self, member: Member) -> None:
        gate, index = self.gates[member.stage], self.plan.seeds.index(member.id.seed)
        if self.has_reached(member) and not gate.has(index):
            self.incomplete[member.stage] -= 1
            eligible = member.value is not None and not bar_by_health(self.plan, member.stage, [member])
            gate.arrive(index, {member.id.seed: member.value}, eligible=eligible)
            if not eligible:
                self._lose(0, member.stage)

    def _waits_for_control(self, candidate: Candidate) -> bool:
        """Whether the control must be at the candidate's gate first, for the gap between the two."""
        by_gap = self.plan.gap is not None and candidate.stage != self.plan.last_stage and not candidate.is_reference
        return by_gap and self.control not in (None, candidate) and self.gates[candidate.stage].control is None

    def _promote(self, event: events.Promoted) -> None:
        candidate = self.candidates[event.candidate]
        self.gates[event.gate].promote(candidate.index)
        candidate.stage = event.gate + 1
        if event.reason == "audit" and not candidate.audited:
            candidate.audited = True
            self.num_audited += 1
        candidate.extra_seed = None
        self.max_stage = max(self.max_stage, candidate.stage)
        self.incomplete[candidate.stage] += candidate.is_ranked
        seeds = self.plan.stage_seeds(candidate.stage)
        for seed in seeds:
            self._require(candidate, seed)
        self._arrive(candidate, candidate.members[seeds[0]])

    def _promote_member(self, event: events.Promoted) -> None:
        candidate = self.candidates[event.candidate]
        assert event.seed is not None
        member = candidate.members[event.seed]
        self.gates[event.gate].promote(self.plan.seeds.index(event.seed))
        member.stage = event.gate + 1
        self.max_stage = max(self.max_stage, member.stage)
        self.incomplete[member.stage] += 1
        self._offer(candidate, member)
        self._arrive_member(member)

    def _add_seed(self, event: events.SeedAdded) -> None:
        candidate = self.candidates[event.candidate]
        candidate.extra_seed = event.seed
        self.gates[event.gate].add_seed(candidate.index)
        self.incomplete[event.gate] += 1
        self._require(candidate, event.seed)
        # That seed may be there from the gate before, and lost: then nothing of it is to come.
        self._arrive(candidate, candidate.members[event.seed])
