"""A run as tidy pandas tables, each made when it is first looked at.

Works on runs that are being written, that lost all members, on races and comparisons; what is not there yet is NaN or
an empty table with its columns. Values are in the objective's own sign.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from analysis.diagnose.api import Finding
from analysis.diagnose.findings import from_json
from analysis.stats.interval import Interval
from analysis.view import Candidate, Member, Run, Standing, drawn

if TYPE_CHECKING:
    import pandas as pd

_MEMBERS = ("member", "candidate", "seed", "status", "reason", "stage", "steps", "best", "best_step")
_CURVES = ("member", "candidate", "seed", "step", "stage")
_CURVES_END = ("train_s", "eval_s", "diverged", "member_s", "total_steps", "total_s")
_CANDIDATES = ("candidate", "label", "origin", "parent", "params", "config", "control", "stage", "gate")
_CANDIDATES_END = ("score", "se", "std", "rank", "num_seeds", "num_lost", "successes", "steps", "seconds", "audited")
_DECISIONS = ("kind", "candidate", "gate", "reason", "seed", "score", "rank", "num_scored", "chance", "gain", "towards")
_GATES = ("gate", "until_step", "candidate", "seed", "control", "score", "se", "df", "rank", "num_scored")
_GATES_END = ("num_seeds", "num_lost", "successes", "promoted", "reason")
_FINDINGS = ("member", "candidate", "seed", "diagnostic", "verdict", "name", "value", "low", "high", "threshold")
_INTEGERS = ("seed", "rank", "num_scored", "successes", "gate", "towards", "best_step")
"""Columns that may lack a number: pandas' nullable integers."""
_NUMBERS = ("score", "se", "std", "chance", "gain")
"""Columns where a missing number is NaN."""


class RunTables:
    """The tables of one run, made once and kept."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __repr__(self) -> str:
        run = self.run
        state = run.ended or ("not begun" if not run.slots else "running, or killed")
        return (
            f"<{run.kind} {run.root.name!r}: {len(run.candidates)} candidates, {len(run.members)} "
            f"members, {run.spent.steps} steps, {state}>"
        )

    @property
    def plan(self) -> Mapping[str, Any]:
        """The resolved plan."""
        return self.run.plan

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the run was made with; empty if that was lost."""
        return self.run.provenance

    @cached_property
    def members(self) -> pd.DataFrame:
        """One row a member: where it stands, its best on val, and what its best checkpoint is worth on both splits.

        ``best`` is NaN for a member that was lost or has not reported; ``val`` and ``test`` until it was tested.
        """
        rows = [self._member_row(member) for member in self.run.members.values()]
        return _frame(rows, (*_MEMBERS, self.run.objective, self.run.test_metric, "seconds"))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row an evaluation: every reported metric under its own name, and what it had cost until then.

        ``total_steps`` and ``total_s`` count the whole run up to this report.
        """
        rows, names = [], {self.run.objective: None}
        for member in self.run.members.values():
            for report in member.reports:
                names |= dict.fromkeys(report.metrics)
                facts = {name: getattr(report, name) for name in ("step", "stage", *_CURVES_END)}
                of = {"member": member.id, "candidate": member.candidate, "seed": member.seed}
                rows.append({**report.metrics, **of, **facts})
        return _frame(rows, (*_CURVES, *names, *_CURVES_END))

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """One row a candidate, in order of entry, with its score at the last gate where all its seeds were in.

        ``gate`` is that gate (0-based, the last one is the end), ``score`` NaN before the first. In a race the one
        config is scored over the members that reached the end.
        """
        standings = self.run.last_standings()
        rows = [self._candidate_row(c, standings.get(c.id)) for c in self.run.candidates.values()]
        return _frame(rows, (*_CANDIDATES, *_CANDIDATES_END, self.run.test_metric, "test_std"))

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """Promotions, seeds added, and members that stopped early or were lost, in order and with the reason."""
        rows = [{name: getattr(decision, name) for name in _DECISIONS} for decision in self.run.decisions]
        return _frame(rows, _DECISIONS)

    @cached_property
    def gates(self) -> pd.DataFrame:
        """One row for each candidate at a gate, best first; in a race ``seed`` says which member."""
        rows = [
            {
                **{name: getattr(e, name) for name in (*_GATES, *_GATES_END) if hasattr(e, name)},
                "control": e.is_control,
                "num_seeds": len(e.values),
            }
            for entries in self.run.gates
            for e in entries
        ]
        return _frame(rows, (*_GATES, *_GATES_END))

    @cached_property
    def findings(self) -> pd.DataFrame:
        """One row a measured value of a diagnostic, from ``members/<id>/findings.json`` and ``report/findings.json``.

        A finding without values has one row that says its verdict; ``member`` is empty for findings about the run.
        """
        rows: list[dict[str, Any]] = []
        for name, findings in self.by_member.items():
            member = self.run.members.get(name)
            of = {"member": name, "candidate": member.candidate if member else "", "seed": member and member.seed}
            for finding in findings:
                rows += [{**of, **row} for row in _finding_rows(finding)]
        return _frame(rows, (*_FINDINGS, "summary"))

    @cached_property
    def by_member(self) -> dict[str, list[Finding]]:
        """Findings by member, those about the whole run under an empty name; unreadable files with a warning."""
        root = self.run.root
        files = {name: root / "members" / name / "findings.json" for name in self.run.members}
        by_member: dict[str, list[Finding]] = {}
        for name, path in {**files, "": root / "report" / "findings.json"}.items():
            if not path.is_file():
                continue
            try:
                by_member[name] = from_json(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                warnings.warn(f"{path}: passed over: {error}", stacklevel=2)
        return by_member

    def findings_table(self) -> pd.DataFrame:
        """Diagnostics side by side: rows (diagnostic, name), columns (candidate, mean | std | num_seeds | verdicts).

        Mean and standard deviation are over seeds (``std`` NaN for one), without those that have no number; verdicts
        are counted, as in ``2 pass, 1 fail``. Findings about the whole run are left out.
        """
        import pandas as pd

        of_members = self.findings[self.findings["member"] != ""]
        cells = of_members.groupby(["candidate", "diagnostic", "name"], sort=False).agg(
            mean=("value", "mean"),
            std=("value", "std"),
            num_seeds=("value", "count"),
            verdicts=("verdict", _counted),
        )
        sides = {candidate: cells.loc[candidate] for candidate in cells.index.unique(0)}
        return pd.concat(sides, axis=1, names=["candidate", ""]) if sides else pd.DataFrame()

    def _member_row(self, member: Member) -> dict[str, Any]:
        run, tested = self.run, member.tested or {}
        same = ("candidate", "seed", "status", "reason", "stage", "steps", "best", "best_step", "seconds")
        return {
            **{name: getattr(member, name) for name in same},
            "member": member.id,
            run.objective: tested.get(run.objective, math.nan),
            run.test_metric: tested.get(run.test_metric, math.nan),
        }

    def _candidate_row(self, candidate: Candidate, standing: Standing | None) -> dict[str, Any]:
        members = candidate.members.values()
        same = ("origin", "parent", "params", "config", "stage", "audited")
        row = {
            **{name: getattr(candidate, name) for name in same},
            "label": candidate.label or drawn(candidate.params),
            "candidate": candidate.id,
            "control": self.run.control is candidate,
            "num_seeds": 0,
            "num_lost": 0,
            "steps": sum(m.steps for m in members),
            "seconds": sum(m.seconds for m in members),
        }
        if standing is None:
            return row
        entry = standing.entry
        return row | {
            **{name: getattr(entry, name) for name in ("gate", "score", "se", "rank", "num_lost", "successes")},
            "std": standing.std,
            "num_seeds": standing.num_seeds,
            self.run.test_metric: standing.test,
            "test_std": standing.test_std,
        }


def _counted(verdicts: Iterable[str]) -> str:
    return ", ".join(f"{num} {verdict}" for verdict, num in Counter(verdicts).most_common())


def _finding_rows(finding: Finding) -> list[dict[str, Any]]:
    of = {"diagnostic": finding.name, "verdict": finding.verdict, "summary": finding.summary}
    rows = []
    for name, value in finding.values.items():
        numbers = value if isinstance(value, Interval) else Interval(value, math.nan, math.nan)
        threshold = finding.threshold.get(name, math.nan)
        ends = {"value": numbers.value, "low": numbers.low, "high": numbers.high}
        rows.append({**of, "name": name, **ends, "threshold": threshold})
    nothing = {"name": "", "value": math.nan, "low": math.nan, "high": math.nan, "threshold": math.nan}
    return rows or [{**of, **nothing}]


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(columns))
    types = {**dict.fromkeys(_INTEGERS, "Int64"), **dict.fromkeys(_NUMBERS, "float64")}
    return frame.astype({name: kind for name, kind in types.items() if name in columns})
