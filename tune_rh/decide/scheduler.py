"""What a session asks before it acts: the decisions, the verdicts, and the protocol of what takes them.

A scheduler is pure: it reads a history and nothing else (no clock, no random numbers, no files), so that every prefix
of a journal gives the same decisions again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from trainables.worker.job import Purpose
from tune_rh.errors import PlanError
from tune_rh.plan.named import named_class
from tune_rh.plan.schema import Plan
from tune_rh.record.events import MemberId, Outcome, Promoted, SeedAdded
from tune_rh.record.history import History


@dataclass(frozen=True)
class RunMember:
    """Move ``member`` to ``until_step``; or read the test split with its best checkpoint, or diagnose that."""

    member: MemberId
    stage: int
    until_step: int
    purpose: Purpose = "train"


@dataclass(frozen=True)
class AskCandidate:
    """Draw a new candidate, record it and ask again.

    By the value of information, ``gain`` and ``towards`` are those of `tune_rh.record.events.CandidateAdded`.
    """

    gain: float | None = None
    towards: int | None = None


@dataclass(frozen=True)
class AskFollowUp:
    """Make the plan's follow-up ``number`` to the config of ``parent``, record it (or why not) and ask again."""

    number: int
    parent: str


@dataclass(frozen=True)
class Wait:
    """Nothing may start before something that runs has reported."""


@dataclass(frozen=True)
class Finish:
    """Nothing runs and nothing is left to do."""


@dataclass(frozen=True)
class Continue:
    """The member goes on towards ``until_step``."""

    until_step: int


@dataclass(frozen=True)
class Park:
    """The member lets go of its slot as it stands: at the end of its job, or because no more of it is needed now."""

    reason: str = "end of the job"


@dataclass(frozen=True)
class Stop:
    """The member is done; ``outcome`` is how."""

    outcome: Outcome
    reason: str


Decision = RunMember | Promoted | SeedAdded | AskCandidate | AskFollowUp | Wait | Finish
"""The two events take no slot: they are to be recorded as they are, and the scheduler asked again."""
Verdict = Continue | Park | Stop


class Scheduler(Protocol):
    """Decides for one plan. Both methods are pure functions of the history."""

    def next(self, history: History, prefer: MemberId | None = None) -> Decision:
        """What a free slot does; ``prefer``, the member that it holds in memory, is taken if it is as good."""
        ...

    def verdict(self, history: History, member: MemberId) -> Verdict:
        """Whether a running member goes on after the report that ``history`` has just taken in."""
        ...


_SCHEDULERS = {
    "halving": "tune_rh.decide.halving:HalvingScheduler",
    "value": "tune_rh.decide.value:ValueScheduler",
    "race": "tune_rh.decide.race:RaceScheduler",
    "comparison": "tune_rh.decide.comparison:ComparisonScheduler",
}
_OF_A_SEARCH = ("halving", "value")


def scheduler_of(plan: Plan) -> Scheduler:
    """The scheduler that the plan names: a class that is made with the plan.

    Raises:
        PlanError: there is none of that name, or it is none.
    """
    name = plan.scheduler
    own = _OF_A_SEARCH if plan.kind == "search" else (type(plan).model_fields["scheduler"].default,)
    if name in _SCHEDULERS and name not in own:
        raise PlanError(f"scheduler = {name!r}: is not for a {plan.kind}, which takes {' or '.join(map(repr, own))}")
    scheduler: Scheduler = named_class("scheduler", name, _SCHEDULERS, ("next", "verdict"))(plan)
    return scheduler
