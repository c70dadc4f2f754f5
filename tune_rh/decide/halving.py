"""The scheduler of a search: what runs next, and whether a member goes on, as functions of plan and history.

It is the ``get_job`` of asynchronous successive halving (Li et al. 2020, Algorithm 2) over steps and seeds:
a free slot never waits for others while there is something that may start.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainables.worker.job import Purpose
from tune_rh.decide import follow_ups, further
from tune_rh.decide.scheduler import (
    AskCandidate,
    AskFollowUp,
    Continue,
    Decision,
    Finish,
    Park,
    RunMember,
    Stop,
    Verdict,
    Wait,
)
from tune_rh.plan.kinds import Search
from tune_rh.plan.rules import PromoteRule
from tune_rh.plan.schema import Plan
from tune_rh.plan.stages import Scoring, Stage
from tune_rh.record.events import MemberId, Promoted, Reason, SeedAdded
from tune_rh.record.gate import Gate
from tune_rh.record.history import History
from tune_rh.record.members import ADVANCE, CHECK, DIAGNOSE, TEST, Candidate, Pending
from tune_rh.record.rules import promotable_by_rule

_NEAR = 0.3
"""Chance of being above the cut from which, and up to one minus which, a candidate counts as near it."""


def after_report(history: History, member: MemberId) -> Verdict:
    """What the rules of a plan make of a member's last report; else it goes on to the end of its job."""
    state = history.member(member)
    end = history.ending(state)
    if end is not None:
        return Stop(*end)
    return Continue(state.until_step) if state.step < state.until_step else Park()


@dataclass(frozen=True)
class HalvingScheduler:
    """The scheduler of a search: candidates against a control, gate by gate."""

    plan: Search
    verdict = staticmethod(after_report)

    def next(self, history: History, prefer: MemberId | None = None) -> Decision:
        """What a free slot does.

        In this order: read the test split for a member that is done; finish the control's stage; advance members of
        promoted candidates; let candidates pass the gates, highest first, or give one near the cut a seed more; fill
        gates that no other candidate can reach; missing seeds; diagnoses; a new candidate; a follow-up whose winner is
        known; promotions that only an idle slot justifies; those that what is left of a budget pays for; wait; audits;
        finish.
        """
        plan, pending = self.plan, history.pending
        if pending and pending[0].kind <= ADVANCE:
            return run_first(plan, pending, prefer)
        left = further.steps_left(plan, history)
        kept = further.kept_for_seeds(plan, history, left)
        asks = may_ask(plan, history) and (lacks_named(plan, history) or further.may_draw(plan, left - kept))
        passed: Promoted | SeedAdded | None = keep_up(history) or _bring_up(history)
        # Audited candidates reach gates that are already closed; their arrival must not promote anyone.
        if passed is None and not history.num_audited:
            if left <= kept:
                passed = _open_further(plan, history, left, seeds=True)
            if passed is None:
                passed = _at_gates(plan, history)
            if passed is None and not asks and not follow_ups.remaining(plan, history):
                passed = _close_gates(plan, history, plan.last_stage)
        if passed:
            return passed
        if pending:
            return run_first(plan, pending, prefer)
        if asks:
            return AskCandidate()
        late = None if history.num_audited else _follow_up(plan, history) or _idle(plan, history, plan.last_stage)
        if late is None and left < math.inf and not history.num_audited:
            late = _open_further(plan, history, left - kept, seeds=False) or _open_further(
                plan, history, left, seeds=True
            )
        if late is None and plan.audit and not follow_ups.remaining(plan, history):
            late = audit(plan, history)
        if late:
            return late
        return Wait() if history.running else Finish()


def run_first(plan: Plan, pending: Sequence[Pending], prefer: MemberId | None) -> RunMember:
    """Run the first in line, or ``prefer`` where that is as good."""
    first = pending[0]
    if prefer is not None:
        for entry in pending:
            if entry[:2] != first[:2]:
                break
            if entry.member == prefer:
                first = entry
                break
    stage = -first.minus_stage
    purpose: Purpose = {TEST: "test", CHECK: "diagnose", DIAGNOSE: "diagnose"}.get(first.kind, "train")  # type: ignore[assignment]
    return RunMember(first.member, stage, plan.stages[stage].until_step, purpose)


def fill(history: History, k: int) -> Promoted | None:
    """Fill ``top`` and ``at_least`` of gate ``k``, which no other candidate can reach.

    A candidate that went on and was lost does not count towards ``at_least``: the next best takes its place.
    """
    gate, stage = history.gates[k], history.plan.stages[k]
    line = gate.waiting or gate.cut
    if not line or is_full(stage, gate):
        return None
    if stage.top and gate.num_promoted < stage.top:
        return promotion(history, k, line[0].entry, "top")
    alive = gate.num_promoted - gate.num_lost_later
    if alive < min(stage.at_least, stage.top or stage.at_least):
        return promotion(history, k, line[0].entry, "at_least")
    return None


def _follow_up(plan: Search, history: History) -> Promoted | SeedAdded | AskFollowUp | None:
    """The next follow-up; before its winner is known, what may still pass a gate below the winner's."""
    left = follow_ups.remaining(plan, history)
    if not left:
        return None
    below = _idle(plan, history, left[0].follow_up.after)
    if below:
        return below
    return follow_ups.due(plan, history)


def _idle(plan: Search, history: History, until: int) -> Promoted | SeedAdded | None:
    """What a slot that would idle lets through the gates below ``until``."""
    return _at_gates(plan, history, until=until, idle=True) or _close_gates(plan, history, until)


def lacks_named(plan: Search, history: History) -> bool:
    """Whether the control or a reference is still to come."""
    return not history.candidates or len(history.references) < len(plan.references)


def may_ask(plan: Search, history: History) -> bool:
    """Whether a candidate may still be drawn, or one that the plan names is still to come."""
    if lacks_named(plan, history):
        return True
    if history.space_exhausted or follow_ups.is_over_budget(plan, history):
        return False
    return history.num_candidates() < plan.num_candidates


def keep_up(history: History) -> Promoted | None:
    """The control and the references keep up with the foremost candidate, whatever their scores."""
    for candidate in (history.control, *history.references):
        if candidate is not None and candidate.stage < history.max_stage and history.is_complete(candidate):
            return pass_beside(history, candidate)
    return None


def _bring_up(history: History) -> Promoted | None:
    """Follow-ups are brought to the stage from which they are ranked."""
    for k, gate in enumerate(history.gates[:-1]):
        if gate.passing:
            return promotion(history, k, gate.passing[0], "follow_up")
    return None


def pass_beside(history: History, candidate: Candidate) -> Promoted:
    """The control or a reference goes on."""
    gate, is_control = history.gates[candidate.stage], candidate is history.control
    score = gate.score(candidate.index)
    shown = None if math.isinf(score) else history.shown(score)
    reason: Reason = "control" if is_control else "reference"
    rank = 0 if is_control else gate.rank(candidate.index)
    return Promoted(candidate.id, candidate.stage, reason, shown, rank, len(gate.order))


def _at_gates(
    plan: Search, history: History, *, until: int | None = None, idle: bool = False
) -> Promoted | SeedAdded | None:
    """What the gates (those below ``until``) allow as they stand, highest first: quota, rules, the band at the cut."""
    for k in reversed(range(plan.last_stage if until is None else until)):
        gate, stage = history.gates[k], plan.stages[k]
        if not gate.waiting or stage.top is not None or is_full(stage, gate):
            continue
        first = gate.waiting[0].entry
        if plan.gates == "stop":
            return promotion(history, k, first, "quota")
        if gate.learnt is not None and not further.may_pass(plan, history, k):
            continue
        more = _more_seeds(plan, history, k)
        if more:
            return more
        if gate.rank(first) < gate.quota():
            return promotion(history, k, first, "quota")
        by_rule = _promote_by_rule(plan.rules.promote, history, k)
        if by_rule:
            return by_rule
        if _is_in_band(plan.scoring, gate, first):
            return promotion(history, k, first, "band")
        if idle and stage.when_idle and gate.rank(first) < gate.quota(up=True):
            return promotion(history, k, first, "idle")
    return None


def _open_further(plan: Search, history: History, left: float, *, seeds: bool) -> Promoted | None:
    """What is left of a budget lets the next best through, where gates learn: to further seeds, or to further steps."""
    opened = further.open_further(plan, history, left, seeds=seeds)
    return None if opened is None else promotion(history, *opened, "budget")


def _is_in_band(scoring: Scoring, gate: Gate, first: int) -> bool:
    """Whether the best that waits below the cut is too close to it to be told from those above.

    Places are kept for better ones that wait for a seed more: they must not find them taken.
    """
    if not scoring.band or scoring.objective != "mean":
        return False
    kept = bisect_left(gate.held, gate.waiting[0])
    if gate.num_promoted + kept >= gate.quota(times=scoring.band_quota):
        return False
    return gate.chance(first) >= scoring.band


def _more_seeds(plan: Search, history: History, k: int) -> SeedAdded | None:
    """One more seed for the best that waits, if it is near the cut and the gate has something left to spend."""
    gate, stage, scoring = history.gates[k], plan.stages[k], plan.scoring
    if not scoring.extra_seeds or scoring.objective != "mean" or stage.num_seeds == len(plan.seeds):
        return None
    if gate.num_extra + 1 > scoring.extra_seeds * stage.num_seeds * len(gate.order):
        return None
    first = gate.waiting[0].entry
    if gate.had_extra(first):
        return None
    chance = gate.chance(first)
    if not _NEAR <= chance <= 1 - _NEAR:
        return None
    candidate = history.candidate_at(first)
    return SeedAdded(candidate.id, k, plan.seeds[stage.num_seeds], chance)


def _promote_by_rule(rule: PromoteRule | None, history: History, k: int) -> Promoted | None:
    gate = history.gates[k]
    control = gate.control_score()
    if rule is None or control is None:
        return None
    # By margin the best goes first, or no candidate does; by health the best of those that are healthier.
    for score, index in (*gate.waiting[:1], *gate.healthier[:1]):
        reason = promotable_by_rule(rule, score, control, gate.health(index), gate.control_health)
        if reason:
            return promotion(history, k, index, reason)
    return None


def _close_gates(plan: Search, history: History, until: int) -> Promoted | None:
    """Fill the first gate (below ``until``) that no other candidate can reach; see `fill`.

    From the lowest gate up: a gate can be closed only when all below it are, for each still sends candidates on.
    Candidates that an idle slot would let through are on the way as well, and waited for.
    """
    for k in range(until):
        if history.incomplete[k] or follow_ups.are_awaited(plan, history, k):
            return None
        if _at_gates(plan, history, until=k + 1, idle=True):
            return None
        closed = close_gate(history, k)
        if closed:
            return closed
    return None


def close_gate(history: History, k: int) -> Promoted | None:
    """What closes a gate that no other candidate can reach: it is filled, then control and references go on."""
    filled = fill(history, k)
    if filled:
        return filled
    for candidate in (history.control, *history.references):
        if candidate is not None and candidate.stage == k and history.is_complete(candidate):
            return pass_beside(history, candidate)
    return None


def audit(plan: Search, history: History) -> Promoted | None:
    """Bring audited candidates to the end, then draw another of those that were cut until there are ``plan.audit``.

    Drawn by a hash of the id, the same for every prefix of the journal. Those drawn pass gate by gate, whatever comes.
    """
    if not all(history.candidates[member.candidate].audited for member in history.running):
        return None
    gates = list(enumerate(history.gates[:-1]))
    waiting = [(k, rank.entry) for k, gate in gates for rank in (*gate.waiting, *gate.cut)]
    under_way = [(k, entry) for k, entry in waiting if history.candidate_at(entry).audited]
    if under_way:
        return promotion(history, *under_way[0], "audit")
    if history.num_audited >= plan.audit or not waiting:
        return None
    return promotion(history, *min(waiting, key=lambda place: _lot(plan, history.candidate_at(place[1]).id)), "audit")


def _lot(plan: Search, candidate: str) -> bytes:
    return hashlib.sha256(f"audit {plan.sampler.seed} {candidate}".encode()).digest()


def is_full(stage: Stage, gate: Gate) -> bool:
    return stage.at_most is not None and gate.num_promoted >= stage.at_most


def promotion(history: History, k: int, index: int, reason: Reason) -> Promoted:
    gate = history.gates[k]
    candidate, seed = history.entry_at(index)
    score = history.shown(gate.score(index))
    passed = Promoted(candidate.id, k, reason, score, gate.rank(index), len(gate.order), seed)
    if gate.learnt is None:
        return passed
    return replace(passed, share=gate.learnt.share, agreement=gate.learnt.agreement.value)
