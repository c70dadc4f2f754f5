"""What a report of a run is made from: who leads, by how much, and every analysis of the run, computed once.

What it is not: words (`analysis.reports.search_sentences`) or a test. Leads are paired by seed with Student's t
intervals, over candidates that were chosen for being good; `analysis.stats.claims` makes claims. Values are in the
objective's own sign and unit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from analysis.api import Finding
from analysis.gate_regret import Regret, gate_regret
from analysis.gate_scores import Entry, FunnelRow, funnel, gate_entries
from analysis.importance import Importance, importance
from analysis.ledger import Ledger, QualityPoint, ledger, quality_against_cost
from analysis.matched_steps import MatchedSteps, matched_steps
from analysis.record_types import CandidateRecord
from analysis.records import Records
from analysis.reports.tables import decimals
from analysis.run import Run, drawn
from analysis.seed_variance import SeedVariance, seed_variance
from analysis.stats.interval import mean_interval
from analysis.stats.student import t_quantile

_LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over ``num`` seeds; NaN where there are too few."""

    mean: float
    std: float
    num: int

    @property
    def half(self) -> float:
        """Half the 95% interval of the mean (Student's t); NaN for fewer than two."""
        if self.num < 2:
            return math.nan
        return t_quantile(0.5 + 0.5 * _LEVEL, self.num - 1) * self.std / math.sqrt(self.num)


@dataclass(frozen=True)
class Lead:
    """How far the best one is ahead of another, paired by seed; positive is better whatever the objective's mode.

    ``low`` and ``high`` (95%) are NaN for a single pair, everything is for none.
    """

    other: str
    mean: float
    low: float
    high: float
    num_pairs: int

    def turned(self) -> Lead:
        """The other one's lead over the best."""
        return Lead(self.other, -self.mean, -self.high, -self.low, self.num_pairs)

    @property
    def is_clear(self) -> bool:
        """Whether the interval lies above zero."""
        return self.low > 0.0


@dataclass(frozen=True)
class Standing:
    """One candidate where it was scored last.

    Attributes:
        entry: its place at that gate.
        label: what it is called.
        val: the score, with the standard deviation over seeds.
        test: the same checkpoints on test.
        at_test: val of those checkpoints, so that the two can be compared; NaN where nothing was tested.
        bound: the score one standard error to the worse: what ranks (of a best of k: the score).
        failed: diagnostics that the plan requires and at least half of its seeds fail.
    """

    entry: Entry
    label: str
    val: Spread
    test: Spread
    at_test: float
    bound: float
    failed: tuple[str, ...]

    @property
    def id(self) -> str:
        """Of the candidate."""
        return self.entry.candidate


@dataclass(frozen=True)
class Facts:
    """Everything that a report says.

    Attributes:
        run: the tables.
        state: ``running``, ``finished``, ``interrupted``, ``failed``, ``killed`` or ``not begun``.
        unit: of the objective; may be empty.
        standings: those at the furthest gate that anybody was scored at, best first; of the end if ``is_end``.
        best: that meets what the plan requires (the first of all if nobody does); None if nobody has a score.
        over_second, over_control: its leads; None where there is no such other.
        over_references: its leads over configs that ran beside the control only to be compared with.
        ladder: rungs (``name``, ``value``, ``note``) on test; ``ladder_note`` says why there are none.
        notes: what could not be read, in words.
    """

    run: Run
    state: str
    unit: str
    standings: tuple[Standing, ...]
    is_end: bool
    best: Standing | None
    over_second: Lead | None
    over_control: Lead | None
    over_references: tuple[Lead, ...]
    ladder: Sequence[Any]
    ladder_note: str
    ledger: Ledger
    funnel: tuple[FunnelRow, ...]
    regret: Regret
    importance: Importance
    seeds: tuple[SeedVariance, ...]
    matched: tuple[MatchedSteps, ...]
    quality: tuple[QualityPoint, ...]
    notes: tuple[str, ...]

    @property
    def records(self) -> Records:
        """Of the run."""
        return self.run.records

    @property
    def places(self) -> int:
        """Decimals for two digits of the narrowest spread over seeds among those that stand."""
        spreads = [s.val.std for s in self.standings if s.val.std > 0.0]
        return max(decimals(min(spreads, default=math.nan)), 3)

    @property
    def second(self) -> Standing | None:
        """The next best, whatever it fails."""
        return next((s for s in self.standings if s is not self.best and s.entry.may_win), None)

    @property
    def on_ladder(self) -> list[tuple[Standing, str]]:
        """Who stands among the baselines on test, and as what: ``best``, ``control`` or ``reference``."""
        roles = [
            (s, "best" if s is self.best else "control" if s.entry.is_control else "reference")
            for s in self.standings
            if s is self.best or s.entry.is_control or not s.entry.may_win
        ]
        return [(s, role) for s, role in roles if not math.isnan(s.test.mean)]

    def verdicts(self, candidate: str) -> dict[str, Counter[str]]:
        """Diagnostic -> how many of the candidate's seeds got each verdict."""
        found: dict[str, Counter[str]] = {}
        for finding in self.findings(candidate):
            found.setdefault(finding.name, Counter())[finding.verdict] += 1
        return found

    def findings(self, candidate: str) -> list[Finding]:
        """Of all seeds of a candidate, one seed after the other."""
        members = self.records.candidates[candidate].members.values()
        return [finding for member in members for finding in self.run.found.get(member.id, ())]


def gather(
    run: Run, state: str, unit: str = "", ladder: Sequence[Any] = (), ladder_note: str = "", notes: Sequence[str] = ()
) -> Facts:
    """Compute everything; for runs without a finisher, one seed or nothing but losses as well.

    Args:
        run: as `analysis.load` opened it.
        state, unit, ladder, ladder_note, notes: see `Facts`.
    """
    records = run.records
    standings, is_end = _standings(records)
    scored = [s for s in standings if math.isfinite(s.val.mean) and s.entry.may_win]
    best = next((s for s in scored if not s.failed), scored[0] if scored else None)
    second = next((s for s in scored if s is not best and not s.entry.is_control), None)
    control = next((s for s in scored if s is not best and s.entry.is_control), None)
    references = [s for s in standings if math.isfinite(s.val.mean) and not s.entry.may_win]
    leads = [_lead(records, best, other) for other in references]
    return Facts(
        run=run,
        state=state,
        unit=unit,
        standings=tuple(standings),
        is_end=is_end,
        best=best,
        over_second=_lead(records, best, second),
        over_control=_lead(records, best, control),
        over_references=tuple(lead for lead in leads if lead is not None and lead.num_pairs),
        ladder=ladder,
        ladder_note=ladder_note,
        ledger=ledger(records),
        funnel=tuple(funnel(records)),
        regret=gate_regret(records),
        importance=importance(records),
        seeds=tuple(seed_variance(records)),
        matched=tuple(matched_steps(records)),
        quality=tuple(quality_against_cost(records)),
        notes=tuple(notes),
    )


def spread(values: Sequence[float]) -> Spread:
    """Of the finite ones."""
    finite = [v for v in values if math.isfinite(v)]
    mean = fmean(finite) if finite else math.nan
    return Spread(mean, stdev(finite) if len(finite) > 1 else math.nan, len(finite))


def called(records: Records, candidate: CandidateRecord) -> str:
    """A preset's name, of a follow-up its winner and what was changed, or what was drawn."""
    if candidate.origin == "follow_up":
        return f"follow-up: {candidate.label}"
    return candidate.label or drawn(candidate.params) or candidate.id


def _standings(records: Records) -> tuple[list[Standing], bool]:
    """Those of the furthest gate where somebody beside the control has a score, best bound first."""
    gates = [[e for e in entries if e.seed is None] for entries in gate_entries(records)]
    told = [k for k, es in enumerate(gates) if any(math.isfinite(e.score) and e.rank is not None for e in es)]
    if not told:
        told = [k for k, es in enumerate(gates) if any(math.isfinite(e.score) for e in es)]
    if not told:
        return [], False
    made = [_standing(records, entry) for entry in gates[told[-1]]]
    made.sort(key=lambda s: (math.isnan(s.bound), records.sign * s.bound, s.id))
    return made, told[-1] == len(gates) - 1


def _standing(records: Records, entry: Entry) -> Standing:
    candidate = records.candidates[entry.candidate]
    values = [v for v in entry.values.values() if v is not None]
    around = stdev(values) if len(values) > 1 else math.nan
    tested = [m.tested for m in candidate.members.values() if m.tested and m.lost_stage is None]
    mean = records.plan.get("scoring", {}).get("objective", "mean") == "mean"
    worse = 0.0 if math.isnan(entry.se) or not mean else records.sign * entry.se
    looked_at = [m.verdicts for m in candidate.members.values() if m.verdicts is not None]
    failed = [
        name
        for name in records.plan.get("require", ())
        if 2 * sum(verdicts.get(name) == "fail" for verdicts in looked_at) >= max(1, len(looked_at))
    ]
    return Standing(
        entry=entry,
        label=called(records, candidate),
        val=Spread(entry.score, around, len(values)),
        test=spread([t.get(records.test_metric, math.nan) for t in tested]),
        at_test=spread([t.get(records.objective, math.nan) for t in tested]).mean,
        bound=entry.score + worse,
        failed=tuple(failed),
    )


def _lead(records: Records, best: Standing | None, other: Standing | None) -> Lead | None:
    if best is None or other is None:
        return None
    ours, theirs = best.entry.values, other.entry.values
    pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    ahead = [records.sign * (b - a) for a, b in pairs if a is not None and b is not None]
    return Lead(other.id, *mean_interval(ahead), len(ahead))
