"""Candidates and members as a history holds them, and the order in which members start. Only `History` changes them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Literal, NamedTuple, overload

from analysis.view import Report
from tune_rh.plan.schema import Plan
from tune_rh.record.events import CandidateAdded, Diagnosed, Evaluated, MemberId, Tested
from tune_rh.record.rules import Curve

_RequiredCheck = Literal["none", "pending", "passed", "failed"]
_Status = Literal["idle", "running", "stopped", "completed", "diverged", "failed"]
TEST, CONTROL, CHECK, ADVANCE, FRESH, DIAGNOSE = range(6)


def candidate_id(number: int) -> str:
    """``c0007``: the name of the candidate that was added after so many others."""
    return f"c{number:04d}"


class Pending(NamedTuple):
    """A member that may start now; sorts in the order in which members are to start.

    Candidate by candidate; where pairs of seeds are compared, seed by seed.
    """

    kind: int
    minus_stage: int
    major: int
    minor: int
    member: MemberId


def kind_of_next(plan: Plan, candidate: Candidate, member: Member, is_first: bool) -> int | None:
    """What is left for ``member`` to do, as a kind of `Pending`; None for nothing. ``is_first``: it goes before all."""
    last = member.stage == plan.last_stage
    if member.status == "idle" and member.step < plan.stages[member.stage].until_step:
        return CONTROL if is_first else ADVANCE if member.step else FRESH
    if last and member.status in ("stopped", "completed") and member.tested is None:
        return TEST
    if last and member.tested is not None and member.diagnosed is None and plan.diagnose:
        return DIAGNOSE
    return CHECK if candidate.required_check == "pending" and candidate.check_seed == member.id.seed else None


class Reports(Sequence[Report]):
    """A member's curve as it is shown: a report for each of its steps, made when it is asked for.

    Args:
        curve: with the steps, values and metrics.
        sign: 1.0 where the objective is minimised, else -1.0.
    """

    __slots__ = ("_curve", "_facts", "_num", "_sign")
    _WIDTH = 7

    def __init__(self, curve: Curve, sign: float) -> None:
        self._curve, self._sign, self._num = curve, sign, 0
        self._facts = array("d")  # a row a report: stage, train_s, eval_s, diverged, member_s, total_steps, total_s

    def append(self, event: Evaluated, stage: int, member_s: float, total_steps: int, total_s: float) -> None:
        """Add the report that the curve has got last."""
        row = (stage, event.train_s, event.eval_s, event.diverged, member_s, total_steps, total_s)
        self._facts.extend(row)
        self._num += 1

    def as_they_are(self) -> Reports:
        """The reports so far, to which none are added."""
        frozen = Reports(self._curve, self._sign)
        frozen._facts, frozen._num = self._facts, self._num
        return frozen

    def __len__(self) -> int:
        return self._num

    @overload
    def __getitem__(self, index: int) -> Report: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Report]: ...

    def __getitem__(self, index: int | slice) -> Report | Sequence[Report]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(self._num)[index])
        i, curve = range(self._num)[index], self._curve
        row = self._facts[self._WIDTH * i : self._WIDTH * (i + 1)]
        stage, train_s, eval_s, diverged, member_s, total_steps, total_s = row
        value = self._sign * curve.values[i] if math.isfinite(curve.values[i]) else math.nan
        spent = (member_s, int(total_steps), total_s)
        return Report(curve.steps[i], value, curve.metrics[i], int(stage), train_s, eval_s, bool(diverged), *spent)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __repr__(self) -> str:
        return repr(tuple(self))


class Member:
    """A candidate with one seed; ``sign`` is 1.0 where the objective is minimised, else -1.0."""

    def __init__(self, member: MemberId, sign: float = 1.0) -> None:
        self.id = member
        self.stage = 0
        self.curve = Curve()
        self.reports = Reports(self.curve, sign)
        self.status: _Status = "idle"
        self.until_step = 0
        self.reason = ""
        self.diverged = False
        self.lost_stage: int | None = None
        """The stage at which it diverged or failed; at the gates before that its values stand."""
        self.tested: Tested | None = None
        self.diagnosed: Diagnosed | None = None
        self.slot_seconds = 0.0

    @property
    def step(self) -> int:
        """The last step reported."""
        return self.curve.steps[-1] if self.curve.steps else 0

    @property
    def value(self) -> float | None:
        """The best value so far; None if the member was lost, or never had a finite one."""
        return None if self.lost or not math.isfinite(self.curve.best) else self.curve.best

    def settle(self, status: _Status, reason: str) -> None:
        """Set where the member stands now, and why."""
        self.status, self.reason = status, reason
        if self.lost:
            self.lost_stage = self.stage

    def reopen(self, before: Plan, after: Plan) -> None:
        """The plan asks for more: another diagnosis, or more training of a member that no rule has stopped."""
        if {*(after.diagnose or ())} - {*(before.diagnose or ())}:
            self.diagnosed = None
        if after.stages[-1].until_step > before.stages[-1].until_step and self.status == "completed":
            self.settle("idle", "")

    def begin_again(self) -> bool:
        """Undo a failure that was not the member's own; whether there was one."""
        failed = self.status == "failed"
        if failed:
            self.settle("idle", "")
            self.lost_stage = None
        return failed

    @property
    def lost(self) -> bool:
        """Diverged or failed: counts as the worst value at a gate."""
        return self.status in ("diverged", "failed")


class Candidate:
    """One config under test, with the members it has so far."""

    def __init__(self, added: CandidateAdded, index: int) -> None:
        self.id = added.candidate
        self.added = added
        self.index = index
        self.stage = 0
        self.members: dict[int, Member] = {}
        self.audited = False
        self.barred = ""
        """Why it may not pass the gate that it stands at, whatever its rank."""
        self.required_check: _RequiredCheck = "none"
        """How it stands with the diagnostics that the plan requires before the last stage."""
        self.check_seed: int | None = None
        self.extra_seed: int | None = None
        """The seed that was added at the gate of the present stage."""

    @property
    def is_reference(self) -> bool:
        """Whether it runs for comparison only: never stopped, and without rank or quota at any gate."""
        return self.added.origin == "reference"

    @property
    def may_pass(self) -> bool:
        """Whether neither a rule nor a required check keeps it from passing the gate that it stands at."""
        return not self.barred and self.required_check != "failed"

    @property
    def is_ranked(self) -> bool:
        """Whether it takes rank and quota at the gate of its stage, or is what others must beat there."""
        return self.stage >= self.added.ranked_from
