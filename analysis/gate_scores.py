"""Who was scored at each gate of a run, with what, and who went on: from its records, standard library only.

Scores follow the rules of the search (`docs/statistics.md`): the mean over seeds of each seed's best up to the gate's
step, or the value of the best of k; a lost seed counts as the worst value that anybody has shown at that gate. They are
computed once over everybody who arrived, where the search, deciding as they came, had seen only the first. Values are
in the objective's own sign.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from analysis.record_types import CandidateRecord, Decision, MemberRecord
from analysis.records import AUDIT, Records
from analysis.stats.scores import SeedScores, Values


@dataclass(frozen=True)
class Entry:
    """A candidate (in a race a member) at a gate.

    Attributes:
        gate: 0-based; the last one is the end of the run.
        seed: of a race's member; None otherwise.
        values: by seed.
        score: over seeds; NaN where nobody at the gate has a value.
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
    values: Values
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
    def may_win(self) -> bool:
        """Whether it is the control or competes with it: references never do."""
        return self.is_control or self.rank is not None

    @property
    def num_lost(self) -> int:
        """Seeds that diverged or failed by then."""
        return sum(value is None for value in self.values.values())


@dataclass(frozen=True)
class FunnelRow:
    """How many candidates (members of a race) entered a stage, were scored and passed; control, references left out."""

    until_step: int
    num_seeds: int
    entered: int
    scored: int
    passed: int
    audited: int
    lost_seeds: int


def gate_entries(records: Records) -> list[list[Entry]]:
    """The entries of every gate, best first, the control where its score puts it. Empty gates stay empty lists."""
    return [_entries(records, gate) for gate in range(len(records.stages))]


def funnel(records: Records) -> list[FunnelRow]:
    """One row a stage; those that passed only to audit a gate are counted apart."""
    control, last = records.control, len(records.stages) - 1
    others = {c.id: c for c in records.candidates.values() if c is not control and c.enters <= last}
    rows = []
    for gate, entries in enumerate(gate_entries(records)):
        stage, scored = records.stages[gate], [e for e in entries if e.candidate in others]
        if records.kind == "race":
            entered = sum(m.stage >= gate for m in records.members.values())
        else:
            entered = sum(c.stage >= gate for c in others.values())
        audited = sum(e.reason == AUDIT for e in scored)
        passed = len(scored) if gate == last else sum(e.promoted for e in scored) - audited
        lost = sum(e.num_lost for e in entries)
        rows.append(FunnelRow(stage["until_step"], stage["num_seeds"], entered, len(scored), passed, audited, lost))
    return rows


def highest(records: Records) -> dict[str, Entry]:
    """Each candidate's entry at the last gate that it was scored at (a race's config has none)."""
    found: dict[str, Entry] = {}
    for entries in gate_entries(records):
        found |= {entry.candidate: entry for entry in entries if entry.seed is None}
    return found


def _entries(records: Records, gate: int) -> list[Entry]:
    arrived = _arrived(records, gate)
    scores = _Scores(records, gate, arrived)
    promoted = {(d.candidate, d.seed): d for d in records.decisions if d.kind == "promoted" and d.gate == gate}
    control = records.control
    found = []
    for order, ((candidate, seed), values) in enumerate(arrived.items()):
        score = scores.score(values)
        found.append((math.isnan(score), score, order, _competes(records, candidate, gate), (candidate, seed), values))
    found.sort(key=lambda row: row[:3])
    num_scored = sum(row[3] for row in found)
    entries, rank = [], 0
    for _, score, _, competes, (candidate, seed), values in found:
        decision: Decision | None = promoted.get((candidate, seed))
        se, df = scores.error(values)
        entries.append(
            Entry(
                gate=gate,
                until_step=records.stages[gate]["until_step"],
                candidate=candidate,
                seed=seed,
                values={s: None if v is None else records.sign * v for s, v in values.items()},
                score=records.sign * score,
                se=se,
                df=df,
                rank=rank if competes else None,
                num_scored=num_scored,
                successes=scores.successes(values),
                promoted=decision is not None,
                reason=decision.reason if decision else "",
                is_control=control is not None and candidate == control.id,
            )
        )
        rank += competes
    return entries


def _competes(records: Records, candidate: str, gate: int) -> bool:
    """Whether it takes a rank at the gate."""
    control = records.control
    return records.candidates[candidate].enters <= gate and (control is None or candidate != control.id)


def _arrived(records: Records, gate: int) -> dict[tuple[str, int | None], Values]:
    """Minimised values of everybody whose seeds have all reached the gate, in order of entry into the search."""
    if records.kind == "race":
        racers = [m for m in records.members.values() if m.stage >= gate and _has_reached(records, m, gate)]
        return {(m.candidate, m.seed): {m.seed: _value(records, m, gate)} for m in racers}
    found: dict[tuple[str, int | None], Values] = {}
    for candidate in records.candidates.values():
        members = _members(records, candidate, gate)
        if candidate.stage >= gate and members and all(_has_reached(records, m, gate) for m in members):
            found[candidate.id, None] = {m.seed: _value(records, m, gate) for m in members}
    return found


def _members(records: Records, candidate: CandidateRecord, gate: int) -> list[MemberRecord]:
    needed = (*records.stage_seeds(gate), *candidate.extra_seeds.get(gate, ()))
    members = [candidate.members[seed] for seed in needed if seed in candidate.members]
    if records.kind == "comparison" and records.is_finished:
        # It may end early: pairs that could not change the verdict were not run.
        return [m for m in members if m.ended]
    return members if len(members) == len(needed) else []


def _has_reached(records: Records, member: MemberRecord, gate: int) -> bool:
    return member.ended or member.steps >= records.stages[gate]["until_step"]


def _value(records: Records, member: MemberRecord, gate: int) -> float | None:
    if member.lost_stage is not None and member.lost_stage <= gate:
        return None
    best = records.best(member, records.stages[gate]["until_step"])
    return None if best is None else records.sign * best.value


class _Scores:
    """Scores of minimised values at one gate, with what is learnt from everybody there."""

    def __init__(self, records: Records, gate: int, arrived: Mapping[tuple[str, int | None], Values]) -> None:
        scoring: Mapping[str, Any] = records.plan.get("scoring", {})
        objective = "mean" if records.kind == "race" else scoring.get("objective", "mean")
        given = scoring.get("success")
        success = None if given is None else records.sign * given
        self._seeds = SeedScores(objective, scoring.get("k", 3), success, records.stage_seeds(gate))
        self._worst = max(_finite(arrived.values()), default=math.nan)
        others = [values for (name, _), values in arrived.items() if _competes(records, name, gate)]
        # Where a plan asks for nothing that needs a common variance, the search uses each candidate's own.
        learns = scoring.get("band", 0.3) > 0 or scoring.get("extra_seeds", 0.2) > 0 or objective != "mean"
        if learns and records.kind == "search":
            self._seeds.fit(others, self._worst)
        self.successes = self._seeds.successes
        self.error = self._seeds.error

    def score(self, values: Values) -> float:
        return math.nan if math.isnan(self._worst) else self._seeds.score(values, self._worst)


def _finite(arrived: Iterable[Values]) -> list[float]:
    return [v for values in arrived for v in values.values() if v is not None]
