"""Whether what a job raises is a mistake in the code of all members, found before more is spent on it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tune_rh.record.events import MemberId
from tune_rh.record.history import History
from tune_rh.record.members import Member

MISTAKE = "T08"
"""The id of the finding that a mistake has stopped a run; a user who accepts it lets members fail."""
_FIRST = 3


def stopped_by(history: History, member: MemberId, error: str) -> tuple[MemberId, ...]:
    """The members that what ``member`` raises, ``error`` in one line, has cost a try; empty: it may be their own.

    It is a mistake where the control's first job raises it: before anything was evaluated, again, or in its last try.
    So it is where the first three members of other candidates do, and none of those has come to its first gate.
    """
    control, state, gate = history.control, history.member(member), history.plan.stages[0].until_step
    if control is None or state.step >= gate or any(event.id == MISTAKE for event in history.accepted):
        return ()
    begun = [one for candidate in history.candidates.values() for one in candidate.members.values() if one.until_step]
    unranked = {control.id, *(candidate.id for candidate in history.references)}
    ranked = [one for one in begun if one.id.candidate not in unranked]
    # What failed may begin again only where no candidate has passed a gate beside it.
    is_shared = not any(one.step >= gate for one in ranked)
    alike = [one.id for one in begun if one is state or (is_shared and error in _raised(history, one))]
    if member.candidate == control.id:
        is_first = not any(one.step >= gate for one in control.members.values())
        is_last_try = history.losses.of_job(member, "exception") >= history.plan.resources.max_failures
        stops = is_first and (not state.step or is_last_try or error in _raised(history, state))
    else:
        first = _first(ranked)
        stops = is_shared and bool(first) and first <= {*alike}
    return tuple(alike) if stops else ()


def _first(ranked: Sequence[Member]) -> set[MemberId]:
    """The first members to begin, of more than one candidate: seeds of one config may fail of that config."""
    for num in range(_FIRST, len(ranked) + 1):
        if len({member.id.candidate for member in ranked[:num]}) > 1:
            return {member.id for member in ranked[:num]}
    return set()


def _raised(history: History, member: Member) -> tuple[str, ...]:
    """What the member's code has raised, in one line each: before it was tried again, and when it was given up."""
    before = history.losses.raised.get(member.id, "")
    return (before, member.reason.partition("\n")[0]) if member.status == "failed" else (before,)
