"""What there is to say about a run, member by member and decision by decision: plain data, standard library only.

Values are in the objective's own sign. Not here: how it is read from disk (`analysis.records`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_ENDED = ("stopped", "completed", "diverged", "failed")


@dataclass(frozen=True)
class Report:
    """One evaluation of a member.

    Attributes:
        step: optimiser steps since the start of the member.
        value: the objective, NaN where it was not reported or is not finite.
        metrics: everything reported.
        stage: that the member was on its way to the end of.
        member_s: slot seconds spent on the member so far.
        total_steps, total_s: steps and slot seconds spent on the whole run so far.
    """

    step: int
    value: float
    metrics: Mapping[str, float]
    stage: int
    train_s: float
    eval_s: float
    diverged: bool
    member_s: float
    total_steps: int
    total_s: float


@dataclass
class MemberRecord:
    """A candidate with one seed.

    Attributes:
        status: ``waiting`` (nothing run yet), ``running``, ``parked``, ``stopped``, ``completed``, ``diverged`` or
            ``failed``.
        reason: of the status, in words.
        stage: that it is at, or was at when it ended; 0-based.
        lost_stage: that it diverged or failed at, None if it did not. It keeps its values at the gates before.
        reports: in order of steps, each step once.
        tested: metrics of the one reading of the test split.
        verdicts: by diagnostic, None before it was diagnosed.
        seconds: slot seconds, repeated work included.
    """

    id: str
    candidate: str
    seed: int
    status: str = "waiting"
    reason: str = ""
    stage: int = 0
    lost_stage: int | None = None
    reports: list[Report] = field(default_factory=list)
    tested: Mapping[str, float] | None = None
    verdicts: Mapping[str, str] | None = None
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """The last step reported."""
        return self.reports[-1].step if self.reports else 0

    @property
    def ended(self) -> bool:
        """Whether it trains no more."""
        return self.status in _ENDED


@dataclass
class CandidateRecord:
    """A config under test.

    Attributes:
        origin: ``control``, ``reference``, ``preset``, ``sampler``, ``follow_up`` or ``probe``.
        parent: of a follow-up, the winner around whose config it was made.
        enters: the stage from whose gate on it competes; below it takes no rank (a reference: everywhere).
        extra_seeds: by gate, which seeds were added beside the stage's.
    """

    id: str
    origin: str
    label: str
    config: Mapping[str, Any]
    params: Mapping[str, Any]
    distributions: Mapping[str, str]
    parent: str | None = None
    enters: int = 0
    stage: int = 0
    audited: bool = False
    members: dict[int, MemberRecord] = field(default_factory=dict)
    extra_seeds: dict[int, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """A promotion, a seed added, or a member that stopped early or was lost.

    Attributes:
        kind: ``promoted``, ``seed added``, ``stopped``, ``diverged``, ``failed``, ``not tested`` or ``not diagnosed``.
        gate: 0-based; for members that ended the stage they were at.
        seed: of the member, or the seed added; None where a whole candidate was promoted.
        score, rank, num_scored: of a promotion, as journaled; the rank is 0-based.
        chance: that a candidate which got one seed more is above the cut.
    """

    kind: str
    candidate: str
    gate: int
    reason: str
    seed: int | None = None
    score: float | None = None
    rank: int | None = None
    num_scored: int | None = None
    chance: float | None = None
