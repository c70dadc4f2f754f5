"""One run as plain data: what reports, tables and diagnostics of whole runs are handed. Standard library only.

Values are in the objective's own sign. `tune_rh.record.view` reads a run from disk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from trainables.api import test_metric
from trainables.knowledge import Knowledge

AUDIT = "audit"
"""The reason of a promotion that only looks whether a gate was right."""
_ENDED = ("stopped", "completed", "diverged", "failed")


class Report(NamedTuple):
    """One evaluation of a member.

    Attributes:
        value: the objective, NaN where it was not reported or is not finite.
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


class Alarm(NamedTuple):
    """A rule of live health that a member broke at ``step``; ``bound`` stands for a bound of the plan's own."""

    rule: str
    step: int
    message: str


@dataclass(frozen=True)
class Member:
    """A candidate with one seed.

    Attributes:
        status: ``waiting`` (nothing reported yet), ``running``, ``parked``, ``stopped``, ``completed``, ``diverged`` or
            ``failed``.
        stage: that it is at, or was at when it ended; 0-based.
        lost_stage: that it diverged or failed at, None if it did not. It keeps its values at the gates before.
        reports: in order of steps, each step once.
        best, best_step: the best value and where that was; NaN and None for a lost member, and before a finite value.
        tested: metrics of the one reading of the test split, empty where that failed.
        verdicts: by diagnostic, None before it was diagnosed, empty where that failed.
        seconds: slot seconds, repeated work included.
        alarms: of live health, in order of steps.
    """

    id: str
    candidate: str
    seed: int
    status: str
    reason: str
    stage: int
    lost_stage: int | None
    reports: Sequence[Report]
    best: float
    best_step: int | None
    tested: Mapping[str, float] | None
    verdicts: Mapping[str, str] | None
    seconds: float
    alarms: Sequence[Alarm] = ()

    @property
    def steps(self) -> int:
        """The last step reported."""
        return self.reports[-1].step if self.reports else 0

    @property
    def ended(self) -> bool:
        """Whether it trains no more."""
        return self.status in _ENDED


@dataclass(frozen=True)
class Candidate:
    """A config under test.

    Attributes:
        origin: ``control``, ``reference``, ``preset``, ``sampler``, ``follow_up`` or ``midpoint``.
        params, distributions: Optuna's; empty for a preset outside the space.
        parent: of a follow-up, the winner around whose config it was made.
        stage: that it has come to; 0-based.
        audited: whether it passed some gate only to see whether the gate was right.
        knowledge: what its model may know; None where its family does not say.
    """

    id: str
    origin: str
    label: str
    config: Mapping[str, Any]
    params: Mapping[str, Any]
    distributions: Mapping[str, str]
    parent: str | None
    stage: int
    audited: bool
    members: Mapping[int, Member]
    knowledge: Knowledge | None = None

    @property
    def name(self) -> str:
        """Preset name; for a follow-up its parent and changes; otherwise the drawn parameters, or the id."""
        if self.origin == "follow_up":
            return f"follow-up: {self.label}"
        return self.label or drawn(self.params) or self.id


@dataclass(frozen=True)
class Decision:
    """A promotion, a seed added, a draw that was worth most, or a member that stopped early or was lost.

    Attributes:
        kind: ``promoted``, ``seed added``, ``drawn``, ``stopped``, ``diverged``, ``failed``, ``not tested`` or
            ``not diagnosed``.
        gate: 0-based; for members that ended the stage they were at.
        seed: of the member, or the seed added; None where a whole candidate was promoted.
        score, rank, num_scored: of a promotion, as journaled; the rank is 0-based.
        chance: that a candidate which got one seed more is above the cut.
        gain: of what the value of information chose, what the final choice was expected to gain from it.
        towards: 0-based; the stage to which the candidate was to be taken for that.
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
    gain: float | None = None
    towards: int | None = None


@dataclass(frozen=True)
class Entry:
    """A candidate (in a race a member) at a gate.

    Attributes:
        gate: 0-based; the last one is the end of the run.
        seed: of a race's member; None otherwise.
        values: by seed, None for one that was lost by then.
        score: over seeds; NaN where no candidate at the gate has a value.
        se, df: standard error of the mean and its degrees of freedom; NaN and 0 where there is nothing to tell from.
        rank: 0-based among ``num_scored``; None for those that do not compete here: the control, references, and
            follow-ups on their way to a later gate.
        successes: seeds that found the good minimum, where a line is drawn.
        reason: of the promotion, empty for those that did not go on.
        is_control: whether it is what others must beat.
    """

    gate: int
    until_step: int
    candidate: str
    seed: int | None
    values: Mapping[int, float | None]
    score: float
    se: float
    df: float
    rank: int | None
    num_scored: int
    successes: int | None
    promoted: bool
    reason: str
    is_control: bool

    @property
    def num_lost(self) -> int:
        """Seeds that diverged or failed by then."""
        return sum(value is None for value in self.values.values())


@dataclass(frozen=True)
class FunnelRow:
    """How many candidates entered a stage, were scored and passed; the control and references are left out.

    Attributes:
        entered: candidates (members of a race) that came to the stage.
        scored: those with a score at its gate, one that waits there for one more seed included.
        passed: those that went on by merit or by rule; at the end, those that finished.
        audited: those that went on only for an audit of this gate or of one before.
        lost_seeds: seeds of the scored that had diverged or failed by then.
    """

    until_step: int
    num_seeds: int
    entered: int
    scored: int
    passed: int
    audited: int
    lost_seeds: int


@dataclass(frozen=True)
class Standing:
    """A candidate among all that were scored at one gate.

    Attributes:
        entry: its place there; of a race's config, over the members that ran to the end.
        label: what it is called, with its role: ``control: e4``, ``follow-up: c0003 lr=0.1``.
        std: standard deviation over the seeds that were not lost; NaN for fewer than two.
        bound: the score one standard error to the worse: what ranks (of a best of k: the score).
        test, test_std, num_tested: the best checkpoints on test.
        at_test: val of those checkpoints, so that the two can be compared; NaN where nothing was tested.
        failed: diagnostics that the plan requires and that it does not pass; asked of those at the end only.
        knowledge: as the candidate's.
    """

    entry: Entry
    label: str
    std: float
    bound: float
    test: float
    test_std: float
    num_tested: int
    at_test: float
    failed: tuple[str, ...]
    knowledge: Knowledge | None

    @property
    def candidate(self) -> str:
        """Its id."""
        return self.entry.candidate

    @property
    def val(self) -> float:
        """The score over seeds."""
        return self.entry.score

    @property
    def num_seeds(self) -> int:
        """Seeds asked for, lost ones included."""
        return len(self.entry.values)

    @property
    def num_lost(self) -> int:
        """Of them, those that diverged or failed."""
        return self.entry.num_lost

    @property
    def is_reference(self) -> bool:
        """Whether it only runs beside those that compete here, and cannot be the best."""
        return self.entry.rank is None and not self.entry.is_control

    @property
    def may_win(self) -> bool:
        """Whether it can be the best: it competes, and some seed came through."""
        return not self.is_reference and self.num_lost < self.num_seeds and math.isfinite(self.val)


@dataclass(frozen=True)
class Spent:
    """Steps and slot seconds spent, beside an estimate for running every candidate to the end with all seeds."""

    steps: int
    slot_seconds: float
    ungated_steps: int
    ungated_slot_seconds: float


@dataclass(frozen=True)
class Run:
    """One run, as it stands.

    Attributes:
        plan: the resolved plan's fields.
        provenance: what the run was made with; empty if that was lost.
        candidates, members: by id, in order of entry.
        gates: of every gate the entries, best first, the control where its score puts it; of a race its members.
        standings: of every gate those with a score there, best bound first, control and references among them; of a
            race its one config, at the end.
        slots: jobs at a time in the last session, 0 before the first.
        ended: how the last session ended; empty while it runs, or if it was killed.
        remarks: sentences on draws that gave no candidate, and on tries of jobs that were lost.
    """

    root: Path
    kind: Literal["search", "race", "comparison"]
    plan: Mapping[str, Any]
    provenance: Mapping[str, Any]
    candidates: Mapping[str, Candidate]
    members: Mapping[str, Member]
    decisions: Sequence[Decision]
    gates: Sequence[Sequence[Entry]]
    funnel: Sequence[FunnelRow]
    standings: Sequence[Sequence[Standing]]
    spent: Spent
    slots: int
    ended: str
    remarks: Sequence[str] = ()

    @property
    def objective(self) -> str:
        """Name of the metric that decides."""
        return str(self.plan["objective"])

    @property
    def test_metric(self) -> str:
        """Name of the same metric on the test split."""
        return test_metric(self.objective)

    @property
    def sign(self) -> float:
        """1 where lower is better, else -1."""
        return 1.0 if self.plan["mode"] == "min" else -1.0

    @property
    def stages(self) -> Sequence[Mapping[str, Any]]:
        """The plan's, each with ``until_step`` and ``num_seeds``."""
        stages: Sequence[Mapping[str, Any]] = self.plan["stages"]
        return stages

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to run."""
        return self.ended == "finished"

    @property
    def control(self) -> Candidate | None:
        """The candidate that others must beat; A of a comparison, None in a race."""
        is_there = self.kind != "race" and self.plan["control"]
        return next(iter(self.candidates.values()), None) if is_there else None

    def stage_seeds(self, stage: int) -> tuple[int, ...]:
        """The seeds that a candidate needs at ``stage``."""
        return tuple(self.plan["seeds"][: self.stages[stage]["num_seeds"]])

    @property
    def ranking(self) -> Sequence[Standing]:
        """Those that finished."""
        return self.standings[-1]

    @property
    def best(self) -> Standing | None:
        """See `best_of`."""
        return best_of(self.ranking)

    @property
    def leading(self) -> Sequence[Standing]:
        """The standings at the furthest gate where a candidate may lead; before the end, one beside the control."""
        for rows in reversed(self.standings):
            if any(row.may_win and (self.is_finished or not row.entry.is_control) for row in rows):
                return rows
        return next((rows for rows in reversed(self.standings) if any(row.may_win for row in rows)), self.ranking)

    def last_standings(self) -> dict[str, Standing]:
        """Each candidate where it was scored last."""
        return {row.candidate: row for rows in self.standings for row in rows}


def best_of(ranking: Sequence[Standing]) -> Standing | None:
    """The first of a ranking that may win and passes what the plan requires; None if there is none."""
    return next((row for row in ranking if row.may_win and not row.failed), None)


def why_no_best(ranking: Sequence[Standing]) -> str:
    """Why a ranking has no best, in a clause."""
    first = next((row for row in ranking if row.may_win), None)
    if first is None:
        return "no candidate finished with a finite score"
    return (
        "no candidate that finished passes what the plan requires; the first of the ranking, "
        f"{first.candidate}, does not pass {', '.join(first.failed)}"
    )


def drawn(params: Mapping[str, object]) -> str:
    """``lr=0.0021 layout=postfix``: what a candidate is called that has no name."""
    return " ".join(f"{key}={v:.3g}" if isinstance(v, float) else f"{key}={v}" for key, v in params.items())
