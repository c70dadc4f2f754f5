"""What can stand in the journal: one frozen dataclass an event, and its JSON line. No event carries a decision's
input that the journal does not hold; times are for reports and budgets only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from trainables.member_job import Purpose

Outcome = Literal["parked", "stopped", "completed", "tested", "diagnosed", "diverged", "failed", "interrupted"]
Origin = Literal["control", "preset", "sampler", "probe", "follow_up", "reference"]
EndReason = Literal["finished", "interrupted", "failed"]
Reason = Literal[
    "control", "quota", "margin", "health", "band", "idle", "at_least", "top", "audit", "follow_up", "reference"
]


class MemberId(NamedTuple):
    """A candidate with one seed; written ``c0007-s42``."""

    candidate: str
    seed: int

    def __str__(self) -> str:
        return f"{self.candidate}-s{self.seed}"

    @classmethod
    def parse(cls, text: str) -> MemberId:
        """The inverse of ``str``."""
        candidate, _, seed = text.rpartition("-s")
        return cls(candidate, int(seed))


@dataclass(frozen=True)
class RunCreated:
    """First line of every journal: what the run must still be when it is resumed."""

    plan_fingerprint: str
    data_digest: str
    journal_schema: int
    config_schema: str


@dataclass(frozen=True)
class SessionStarted:
    """A driver took the run over; jobs that were under way are no longer. ``at_s`` is Unix time."""

    session: int
    at_s: float
    runner: str
    slots: int


@dataclass(frozen=True)
class CandidateAdded:
    """A config under test. ``params`` and ``distributions`` are Optuna's, empty for a preset outside the space.

    Attributes:
        patience_steps: a patience of its own, in place of the plan's.
        parent: of a follow-up, the winner around whose config it was made.
        enters: the stage from whose gate on it competes (0-based). At gates below it takes no rank and no quota.
    """

    candidate: str
    config: Mapping[str, Any]
    config_digest: str
    origin: Origin
    label: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)
    patience_steps: int | None = None
    parent: str | None = None
    enters: int = 0


@dataclass(frozen=True)
class FollowUpSkipped:
    """A follow-up around ``parent`` that was not made: its config is known, or there is no such config."""

    parent: str
    label: str
    reason: str


@dataclass(frozen=True)
class SpaceExhausted:
    """The sampler has no config left that was not tried."""

    draws: int


@dataclass(frozen=True)
class Promoted:
    """A candidate passed the gate of stage ``gate`` (0-based): its rank among ``num_scored`` and why.

    In a race a member passes: then ``seed`` is its seed.
    """

    candidate: str
    gate: int
    reason: Reason
    score: float | None
    rank: int
    num_scored: int
    seed: int | None = None


@dataclass(frozen=True)
class SeedAdded:
    """A candidate near the cut of ``gate`` gets one seed more before it is decided; ``chance`` of being above it."""

    candidate: str
    gate: int
    seed: int
    chance: float


@dataclass(frozen=True)
class JobStarted:
    """A member moves on to ``until_step``; or its best checkpoint is read on the test split, or diagnosed."""

    member: str
    stage: int
    until_step: int
    at_s: float
    purpose: Purpose = "train"


@dataclass(frozen=True)
class Reported:
    """An evaluation of a member. A repeated step (after a restart from a checkpoint) is kept, and counts once."""

    member: str
    step: int
    metrics: Mapping[str, float]
    train_s: float
    eval_s: float
    diverged: bool = False


@dataclass(frozen=True)
class Tested:
    """The one reading of the test split: the best checkpoint's metrics on val and test."""

    member: str
    step: int
    metrics: Mapping[str, float]
    eval_s: float


@dataclass(frozen=True)
class Diagnosed:
    """A member's best checkpoint was diagnosed: diagnostic -> verdict. The findings lie in the member's folder."""

    member: str
    step: int
    verdicts: Mapping[str, str]
    seconds: float


@dataclass(frozen=True)
class JobEnded:
    """A job gave its slot back."""

    member: str
    outcome: Outcome
    reason: str
    at_s: float


@dataclass(frozen=True)
class SessionEnded:
    """A driver let go of the run in good order."""

    session: int
    at_s: float
    reason: EndReason


Event = (
    RunCreated
    | SessionStarted
    | CandidateAdded
    | FollowUpSkipped
    | SpaceExhausted
    | Promoted
    | SeedAdded
    | JobStarted
    | Reported
    | Tested
    | Diagnosed
    | JobEnded
    | SessionEnded
)
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in Event.__args__}
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(event: Event) -> str:
    """One line of strict JSON (no newline); non-finite numbers in metrics are written as strings."""
    fields = asdict(event)
    if "metrics" in fields:
        fields["metrics"] = {name: _number_out(value) for name, value in fields["metrics"].items()}
    return json.dumps({"event": type(event).__name__, **fields}, separators=(",", ":"), allow_nan=False)


def decode(line: str) -> Event:
    """The inverse of `encode`; raises ValueError on anything else."""
    fields = json.loads(line)
    try:
        kind = KINDS[fields.pop("event")]
        if "metrics" in fields:
            fields["metrics"] = {name: _NON_FINITE.get(value, value) for name, value in fields["metrics"].items()}
        event: Event = kind(**fields)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not an event of this schema ({error})") from error
    return event


def _number_out(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value
