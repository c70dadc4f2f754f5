"""Candidates around the winner of a gate: which of the plan's follow-ups is due, around whom, and what it is. Pure.

The plan's tables are taken in order, and each table's changes in order. A table is due when no other candidate can
arrive at its gate or at one below. The leader there is then its winner for all of its changes, and stays so whatever
comes: the journal names it with the first of them. Not here: adding the candidate (`tune_rh.run.family_source`), or
letting it pass gates (`tune_rh.decide.halving`).
"""

from __future__ import annotations

from tune_rh.decide.scheduler import AskFollowUp
from tune_rh.plan.follow_ups import Change, changes
from tune_rh.plan.kinds import Search
from tune_rh.record.gate import Rank
from tune_rh.record.history import History
from tune_rh.record.members import Candidate


def is_over_budget(plan: Search, history: History) -> bool:
    """Whether the plan's budget lets no new candidate start any more."""
    steps, hours = plan.budget.max_steps, plan.budget.max_slot_hours
    return (steps is not None and history.steps_spent >= steps) or (
        hours is not None and history.slot_seconds >= hours * 3600
    )


def remaining(plan: Search, history: History) -> list[Change]:
    """The changes that are still to come; none once the budget is spent, for they are new candidates."""
    return [] if is_over_budget(plan, history) else changes(plan)[len(history.followed) :]


def due(plan: Search, history: History) -> AskFollowUp | None:
    """The next change, if its winner is known: no candidate may be drawn any more, or pass a gate below the table's."""
    left = remaining(plan, history)
    if not left:
        return None
    number, after = len(history.followed), left[0].follow_up.after
    if number and changes(plan)[number - 1].table == left[0].table:
        return AskFollowUp(number, history.followed[-1])
    if any(history.incomplete[: after + 1]) or any(_may_come(history, c, after) for c in history.follow_ups):
        return None
    won = winner(history, after)
    return None if won is None else AskFollowUp(number, won.id)


def are_awaited(plan: Search, history: History, gate: int) -> bool:
    """Whether a follow-up that is ranked at ``gate`` is still to come to it, so that the gate cannot be closed.

    A follow-up of a later gate's winner is not waited for: it is never there before this gate is closed.
    """
    return any(c.follow_up.after <= gate and c.follow_up.enters <= gate for c in remaining(plan, history)) or any(
        c.added.ranked_from <= gate and not c.is_ranked and not history.is_out(c) for c in history.follow_ups
    )


def winner(history: History, gate: int) -> Candidate | None:
    """The leader at ``gate``: the control, or the best of those that may pass or have passed, references left out.

    Ties go to the earlier entry. None without a control where no candidate may pass.
    """
    arrived = history.gates[gate]
    control = arrived.control_score()
    scored = [] if control is None else [Rank(control, 0)]
    scored += [rank for rank in arrived.order if not arrived.is_out(rank.entry)][:1]
    # A follow-up on its way to a later gate takes no rank here, but has a score.
    passing = [c for c in history.follow_ups if c.index in arrived.unranked and not arrived.is_out(c.index)]
    scored += [Rank(arrived.score(c.index), c.index) for c in passing]
    return history.candidate_at(min(scored).entry) if scored else None


def _may_come(history: History, candidate: Candidate, gate: int) -> bool:
    """Whether a follow-up that is ranked later is on its way to ``gate`` or to one below."""
    return candidate.stage <= gate and not candidate.is_ranked and not history.is_complete(candidate)
