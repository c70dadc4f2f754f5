"""What can stand in the journal: one frozen dataclass an event, and its JSON line. No event carries a decision's
input that the journal does not hold; times are for reports and budgets only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import StringConstraints

from analysis.view import Decision
from trainables.worker.job import Purpose
from trainables.worker.report import Codec, Diagnosed, Evaluated, Fields, MemberId, Message, Number, Tested
from tune_rh.plan.schema import Origin

__all__ = [
    "KINDS",
    "CandidateAdded", "CandidateId", "Diagnosed", "EndReason", "Evaluated", "Event", "FindingAccepted",
    "FollowUpSkipped", "Halted", "JobEnded", "JobRetried", "JobStarted", "LossCause", "MemberId", "NodeJoined",
    "NodeLost", "Origin", "Outcome", "PlanChanged", "Promoted", "Reason", "RunCreated", "SeedAdded", "SessionEnded",
    "SessionStarted", "SlotsChanged", "SpaceExhausted", "Tested", "as_decision", "decode", "encode",
]  # fmt: skip

CandidateId = Annotated[str, StringConstraints(pattern=r"^c[0-9]{4,9}$")]
"""Members' folders are named after it, so that nothing else may come from a journal."""
Outcome = Literal["parked", "stopped", "completed", "tested", "diagnosed", "diverged", "failed", "interrupted"]
OTHER_REASONS = "other reasons"
"""Stands in ``passed_over`` for those that are rarer than the ones it names."""
EndReason = Literal["finished", "interrupted", "failed", "halted"]
LossCause = Literal["exception", "oom", "actor", "node", "preempted", "storage"]
Reason = Literal[
    "control", "quota", "margin", "health", "band", "idle", "at_least", "top", "audit", "follow_up", "reference",
    "value", "budget",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunCreated(Message):
    """First line of every journal: what the run must still be when it is resumed.

    ``made_by`` says what else made it (`tune_rh.preflight.origin`): a change of that has to be accepted.
    """

    event: Literal["RunCreated"] = field(default="RunCreated", kw_only=True)
    plan_fingerprint: str
    data_digest: str
    journal_schema: int
    config_schema: str
    made_by: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FindingAccepted(Message):
    """What a check before launch refuses, and the user wants all the same; from then on the run goes on despite it."""

    event: Literal["FindingAccepted"] = field(default="FindingAccepted", kw_only=True)
    id: str
    part: str
    message: str


@dataclass(frozen=True, slots=True)
class PlanChanged(Message):
    """From here on the plan differs in ``changes``: its top-level fields by name, with their new values as JSON."""

    event: Literal["PlanChanged"] = field(default="PlanChanged", kw_only=True)
    changes: Fields


@dataclass(frozen=True, slots=True)
class SessionStarted(Message):
    """A driver took the run over; jobs that were under way are no longer. ``at_s`` is Unix time."""

    event: Literal["SessionStarted"] = field(default="SessionStarted", kw_only=True)
    session: int
    at_s: Number
    runner: str
    slots: int


@dataclass(frozen=True, slots=True)
class CandidateAdded(Message):
    """A config under test. ``params`` and ``distributions`` are Optuna's, empty for a preset outside the space.

    Attributes:
        patience_steps: a patience of its own, in place of the plan's.
        parent: of a follow-up, the winner around whose config it was made.
        ranked_from: the stage from whose gate on it is ranked (0-based). At gates below it takes no rank and no quota.
        passed_over: why draws before it were no valid config, and how many for each reason.
        gain: where the value of information asked for it, what the final choice is expected to gain, in units of the
            objective, if it is taken to the stage ``towards``.
    """

    event: Literal["CandidateAdded"] = field(default="CandidateAdded", kw_only=True)
    candidate: CandidateId
    config: Fields
    config_digest: str
    origin: Origin
    label: str = ""
    params: Fields = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)
    patience_steps: int | None = None
    parent: str | None = None
    ranked_from: int = 0
    passed_over: Mapping[str, int] = field(default_factory=dict)
    gain: Number | None = None
    towards: int | None = None


@dataclass(frozen=True, slots=True)
class FollowUpSkipped(Message):
    """A follow-up around ``parent`` that was not made: its config is known, or there is no such config."""

    event: Literal["FollowUpSkipped"] = field(default="FollowUpSkipped", kw_only=True)
    parent: str
    label: str
    reason: str


@dataclass(frozen=True, slots=True)
class SpaceExhausted(Message):
    """No config is left that was not tried: so many ``draws`` gave none, those of ``passed_over`` no valid one."""

    event: Literal["SpaceExhausted"] = field(default="SpaceExhausted", kw_only=True)
    draws: int
    passed_over: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Promoted(Message):
    """A candidate passed the gate of stage ``gate`` (0-based): its rank among ``num_scored`` and why.

    In a race a member passes: then ``seed`` is its seed. By the value of information, ``gain`` is what the final choice
    is expected to gain, in units of the objective, if the candidate is taken to the stage ``towards``. Of a gate
    that learns its share: the ``share`` that it lets through now, and the ``agreement`` of ranks with those at the next
    gate from which that follows.
    """

    event: Literal["Promoted"] = field(default="Promoted", kw_only=True)
    candidate: str
    gate: int
    reason: Reason
    score: Number | None
    rank: int
    num_scored: int
    seed: int | None = None
    gain: Number | None = None
    towards: int | None = None
    share: Number | None = None
    agreement: Number | None = None


@dataclass(frozen=True, slots=True)
class SeedAdded(Message):
    """A candidate near the cut of ``gate`` gets one seed more before it is decided; ``chance`` of being above it."""

    event: Literal["SeedAdded"] = field(default="SeedAdded", kw_only=True)
    candidate: str
    gate: int
    seed: int
    chance: Number


@dataclass(frozen=True, slots=True)
class JobStarted(Message):
    """A member moves on to ``until_step``; or its best checkpoint is read on the test split, or diagnosed.

    ``node`` names the machine where the member's worker is known already: in process, and where the member goes on in
    the worker that it has. Empty otherwise: Ray places a job once it is on record, and an event more for each of them
    would be one more wait for the disk, for a fact that only a loss needs and `JobRetried` has.
    """

    event: Literal["JobStarted"] = field(default="JobStarted", kw_only=True)
    member: MemberId
    stage: int
    until_step: int
    at_s: Number
    purpose: Purpose = "train"
    node: str = ""


@dataclass(frozen=True, slots=True)
class JobRetried(Message):
    """A try of a job was lost, and the job is tried again under a new lease.

    Attributes:
        from_step: the member's last step on record; its curve goes on from there.
        node, pid: where it ran; empty and 0 where that is not known.
        cause: ``exception``: the member's own code raised; ``oom``: it has run out of GPU memory; ``actor``: its worker
            died or cannot be reached; ``node``: with the whole machine; ``preempted``: the machine is being taken away;
            ``storage``: the file system failed.
        reason: in one line.
    """

    event: Literal["JobRetried"] = field(default="JobRetried", kw_only=True)
    member: MemberId
    from_step: int
    node: str
    pid: int
    cause: LossCause
    reason: str
    at_s: Number


@dataclass(frozen=True, slots=True)
class Halted(Message):
    """The session stops on a mistake in the code of all members, before more is spent on it.

    Attributes:
        members: those whose jobs it has cost a try; each that failed of it begins again in the next session.
        error: what was raised, in one line, then the traceback.
    """

    event: Literal["Halted"] = field(default="Halted", kw_only=True)
    members: tuple[MemberId, ...]
    error: str
    at_s: Number


@dataclass(frozen=True, slots=True)
class JobEnded(Message):
    """A job gave its slot back."""

    event: Literal["JobEnded"] = field(default="JobEnded", kw_only=True)
    member: MemberId
    outcome: Outcome
    reason: str
    at_s: Number


@dataclass(frozen=True, slots=True)
class NodeJoined(Message):
    """A machine came to the cluster during the session."""

    event: Literal["NodeJoined"] = field(default="NodeJoined", kw_only=True)
    node: str
    at_s: Number


@dataclass(frozen=True, slots=True)
class NodeLost(Message):
    """A machine of the cluster is gone; jobs that it took along are retried by events of their own."""

    event: Literal["NodeLost"] = field(default="NodeLost", kw_only=True)
    node: str
    at_s: Number


@dataclass(frozen=True, slots=True)
class SlotsChanged(Message):
    """So many jobs run at a time from here on; those that run go on."""

    event: Literal["SlotsChanged"] = field(default="SlotsChanged", kw_only=True)
    slots: int
    at_s: Number


@dataclass(frozen=True, slots=True)
class SessionEnded(Message):
    """A driver let go of the run in good order."""

    event: Literal["SessionEnded"] = field(default="SessionEnded", kw_only=True)
    session: int
    at_s: Number
    reason: EndReason


Event = (
    RunCreated
    | FindingAccepted
    | PlanChanged
    | SessionStarted
    | CandidateAdded
    | FollowUpSkipped
    | SpaceExhausted
    | Promoted
    | SeedAdded
    | JobStarted
    | JobRetried
    | Evaluated
    | Tested
    | Diagnosed
    | Halted
    | JobEnded
    | NodeJoined
    | NodeLost
    | SlotsChanged
    | SessionEnded
)
KINDS = frozenset(kind.__name__ for kind in Event.__args__)
_CODEC: Codec[Event] = Codec(Event)
encode, decode = _CODEC.encode, _CODEC.decode


def as_decision(event: Event) -> Decision | None:
    """What ``event`` is shown as where a run's decisions are listed; None for what is no decision by itself."""
    match event:
        case Promoted():
            of = (event.candidate, event.gate, event.reason, event.seed, event.score, event.rank, event.num_scored)
            return Decision("promoted", *of, gain=event.gain, towards=event.towards)
        case SeedAdded():
            return Decision("seed added", event.candidate, event.gate, "near the cut", event.seed, chance=event.chance)
        case CandidateAdded() if event.gain is not None:
            return Decision("drawn", event.candidate, 0, "value", gain=event.gain, towards=event.towards)
        case _:
            return None
