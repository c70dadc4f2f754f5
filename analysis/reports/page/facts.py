"""What a report of a run is made from: who leads, by how much, and every analysis of the run, computed once.

Leads are paired by seed with Student's t intervals, over candidates that were chosen for being good: no claims
(`analysis.stats.claims` makes those). Values are in the objective's own sign and unit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.diagnose.api import Baseline, Diagnostic, Finding
from analysis.extraction import Extracted
from analysis.reports.tables import decimals
from analysis.search.cost import Ledger, QualityPoint, ledger, quality_against_cost
from analysis.search.gate_regret import Regret, gate_regret
from analysis.search.importance import Importance, importance
from analysis.search.matched_steps import MatchedSteps, matched_steps
from analysis.search.seed_variance import SeedVariance, seed_variance
from analysis.stats.interval import Interval, mean_interval
from analysis.tables import RunTables
from analysis.view import Run, Standing
from trainables.errors import UnknownFamily


@dataclass(frozen=True)
class Lead:
    """How far the best one is ahead of another in the mean over pairs of seeds; positive is better in either mode."""

    other: str
    ahead: Interval
    num_pairs: int


@dataclass(frozen=True)
class Outlook:
    """How far a run is that goes on: of how many steps it is expected to take, and the seconds left at its pace."""

    expected_steps: int
    seconds_left: float


@dataclass(frozen=True)
class Facts:
    """Everything that a report says.

    Attributes:
        state: ``running``, ``finished``, ``interrupted``, ``failed``, ``killed`` or ``not begun``.
        unit: of the objective; may be empty.
        best: of the finished, the run's best; before the end, who leads; None if there is none.
        over_second, over_control: its leads; None where there is no such other.
        over_references: its leads over configs that ran beside the control only to be compared with.
        baselines: on test; ``baselines_note`` says why there are none.
        notes: what could not be read, in words.
        outlook: of a run that goes on, once it has a pace; else None.
        extracted: formulas of a winner, where they lie in ``report/``.
    """

    tables: RunTables
    state: str
    unit: str
    best: Standing | None
    over_second: Lead | None
    over_control: Lead | None
    over_references: tuple[Lead, ...]
    baselines: Sequence[Baseline]
    baselines_note: str
    ledger: Ledger
    regret: Regret
    importance: Importance
    seeds: tuple[SeedVariance, ...]
    matched: tuple[MatchedSteps, ...]
    quality: tuple[QualityPoint, ...]
    notes: tuple[str, ...]
    outlook: Outlook | None = None
    extracted: Extracted | None = None

    @property
    def run(self) -> Run:
        """The run as plain data."""
        return self.tables.run

    @property
    def diagnostics(self) -> Mapping[str, Diagnostic]:
        """Those of the run's family by name; none where the family cannot be imported here."""
        from analysis.diagnose.registry import diagnostics_of

        try:
            return diagnostics_of(str(self.run.plan["family"]))
        except UnknownFamily:
            return {}

    @property
    def standings(self) -> Sequence[Standing]:
        """Those at the furthest gate that a candidate leads, best first."""
        return self.run.leading

    @property
    def is_end(self) -> bool:
        """Whether those that stand have finished."""
        return self.standings is self.run.ranking

    @property
    def places(self) -> int:
        """Decimals for two digits of the narrowest spread over seeds among those that stand."""
        spreads = [s.std for s in self.standings if s.std > 0.0]
        return max(decimals(min(spreads, default=math.nan)), 3)

    @property
    def beside_baselines(self) -> list[tuple[Standing, str]]:
        """What stands among the baselines on test, and as what: ``best``, ``control`` or ``reference``."""
        roles = [
            (s, "best" if s is self.best else "control" if s.entry.is_control else "reference")
            for s in self.standings
            if s is self.best or s.entry.is_control or s.is_reference
        ]
        return [(s, role) for s, role in roles if not math.isnan(s.test)]

    def verdicts(self, candidate: str) -> dict[str, Counter[str]]:
        """Diagnostic -> how many of the candidate's seeds got each verdict."""
        counts: dict[str, Counter[str]] = {}
        for finding in self.findings(candidate):
            counts.setdefault(finding.name, Counter())[finding.verdict] += 1
        return counts

    def findings(self, candidate: str) -> list[Finding]:
        """Of all seeds of a candidate, one seed after the other."""
        members = self.run.candidates[candidate].members.values()
        return [finding for member in members for finding in self.tables.by_member.get(member.id, ())]


def gather(
    tables: RunTables,
    state: str,
    unit: str = "",
    baselines: Sequence[Baseline] = (),
    baselines_note: str = "",
    notes: Sequence[str] = (),
    outlook: Outlook | None = None,
    extracted: Extracted | None = None,
) -> Facts:
    """Compute everything; for runs without a finisher, one seed or nothing but losses as well."""
    run = tables.run
    rows = run.leading
    scored = [s for s in rows if s.may_win]
    best = run.best if rows is run.ranking else next(iter(scored), None)
    second = next((s for s in scored if s is not best and not s.entry.is_control), None)
    control = next((s for s in scored if s is not best and s.entry.is_control), None)
    leads = [_lead(run, best, other) for other in rows if other.is_reference and math.isfinite(other.val)]
    return Facts(
        tables=tables,
        state=state,
        unit=unit,
        best=best,
        over_second=_lead(run, best, second),
        over_control=_lead(run, best, control),
        over_references=tuple(lead for lead in leads if lead is not None and lead.num_pairs),
        baselines=baselines,
        baselines_note=baselines_note,
        ledger=ledger(run),
        regret=gate_regret(run),
        importance=importance(run),
        seeds=tuple(seed_variance(run)),
        matched=tuple(matched_steps(run)),
        quality=tuple(quality_against_cost(run)),
        notes=tuple(notes),
        outlook=outlook if state == "running" else None,
        extracted=extracted,
    )


def _lead(run: Run, best: Standing | None, other: Standing | None) -> Lead | None:
    if best is None or other is None:
        return None
    ours, theirs = best.entry.values, other.entry.values
    pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    ahead = [run.sign * (b - a) for a, b in pairs if a is not None and b is not None]
    return Lead(other.candidate, mean_interval(ahead), len(ahead))
