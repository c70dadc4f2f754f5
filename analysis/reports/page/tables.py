"""The tables of a report of a run, for HTML, Markdown and CSV alike; no markup in them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from analysis.escape import csv_cell, printable
from analysis.reports.page.facts import Facts
from analysis.reports.plots import shortened
from analysis.reports.tables import NONE, counted, decimals, duration, ends, mean_std, number, write_text
from analysis.tables import RunTables
from analysis.view import Candidate, Run
from trainables.given.module import called
from trainables.knowledge import Knowledge

if TYPE_CHECKING:
    import pandas as pd

CSVS = ("candidates.csv", "members.csv", "curves.csv", "findings.csv", "decisions.csv")
"""Tables beside a page."""
_MAX_MATCHED = 10  # finishers held against the control, the best ones
_VALUE = 60  # characters of a parameter's value that is no number


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and what it sorts by (the text itself where None; NaN comes last)."""

    text: str
    key: float | None = None

    @property
    def data_key(self) -> str | None:
        """What a page's table sorts by where the text does not say it; empty for no number."""
        if self.key is None:
            return None
        if math.isnan(self.key):
            return ""
        short = f"{self.key:.8g}"
        return None if self.text.replace(",", "") == short else short


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        text_columns: the first columns that are words, aligned left.
        caption: a sentence above it; may be empty.
        sortable: whether a page lets its reader sort it.
        bold: index of the row that matters most; None for none.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text_columns: int = 1
    caption: str = ""
    sortable: bool = False
    bold: int | None = None


def baselines_table(facts: Facts) -> Table:
    """Baselines on test with the best one, the control and references among them, worst first."""
    says = any(row.knowledge for row in facts.baselines)
    rows = [(float(row.value), row.name, row.knowledge, row.note, math.nan) for row in facts.baselines]
    best = "" if facts.best is None else facts.best.candidate
    for s, role in facts.beside_baselines:
        note = f"this run's {role}, {counted(s.num_tested, 'seed')}"
        rows.append((s.test, f"{s.candidate} {facts.run.candidates[s.candidate].name}", s.knowledge, note, s.test_std))
    rows.sort(key=lambda row: -facts.run.sign * row[0])
    cells = [
        [*map(Cell, (name, *_known(knows, says), note)), *(_number(facts, number) for number in (value, std))]
        for value, name, knows, note, std in rows
    ]
    bold = next((i for i, row in enumerate(cells) if best and row[0].text.startswith(f"{best} ")), None)
    texts = ("predictor", *_known("may know", says), "note")
    head = f"test{f' ({facts.unit})' if facts.unit else ''}"
    return Table((*texts, head, "std over seeds"), cells, len(texts), bold=bold)


def _known(knowledge: Knowledge | str | None, says: bool) -> list[str]:
    """The cell of a column that is there only where candidates or baselines say what they know."""
    return [str(knowledge or NONE)] if says else []


def funnel_table(facts: Facts) -> Table:
    """Who entered, was scored and went on at each gate, and what that cost."""
    rows = []
    for row, spent in zip(facts.run.funnel, facts.ledger.stages, strict=True):
        counts = (row.num_seeds, row.entered, row.scored, row.passed, row.audited, row.lost_seeds)
        rows.append([*map(_count, (row.until_step, *counts, spent.steps)), Cell(duration(spent.slot_seconds))])
    header = ("until step", "seeds", "entered", "scored", "passed", "audited", "lost seeds", "steps", "compute time")
    return Table(header, rows, 0)


def regret_table(facts: Facts) -> Table:
    """Each gate against the next, where anything can be said."""
    rows = []
    for gate in facts.regret.gates:
        if gate.spearman is None and gate.chance_cut is None:
            continue
        seeds = counted(facts.run.stages[gate.gate + 1]["num_seeds"], "seed")
        to = f"{gate.to_step:,}" if gate.to_step > gate.from_step else f"the same with {seeds}"
        cells = [Cell(f"{gate.from_step:,} to {to}"), Cell(gate.note)]
        cells += map(_count, (gate.num_scored, gate.num_passed, gate.num_pairs))
        for estimate in (gate.spearman, gate.chance_cut, gate.chance_cut_corrected):
            text = NONE if estimate is None else f"{estimate.value:.2f} ({ends(estimate, 2)})"
            cells.append(Cell(text, math.nan if estimate is None else estimate.value))
        rows.append(cells)
    head = (
        "gate",
        "from",
        "scored",
        "passed",
        "pairs",
        "rank correlation",
        "best was cut",
        "best was cut, corrected for selection",
    )
    return Table(head, rows, 2)


def seeds_table(facts: Facts) -> Table:
    """How much of the spread is between candidates and how much between their seeds."""
    rows = []
    for row in facts.seeds:
        counts = map(_count, (row.num_candidates, row.num_values, row.num_lost))
        share = f"{number(row.seed_share.value, 2)} ({ends(row.seed_share, 2)})"
        best = Cell(number(row.best_share, 2), row.best_share)
        rows.append([Cell(f"{row.until_step:,}"), *counts, Cell(share, row.seed_share.value), best])
    head = ("at step", "candidates", "values", "lost", "variance due to seeds (95% interval)", "in the best third")
    return Table(head, rows, 0)


def importance_table(facts: Facts) -> Table:
    """Shares with how often chance shows as much."""
    rows = [
        [Cell(s.name), Cell("yes" if s.stands_out else "no"), Cell(f"{s.share:.2f}", s.share), Cell(f"{s.p_value:.2f}")]
        for s in facts.importance.shares
    ]
    return Table(("parameter", "above chance", "share", "p over all parameters"), rows, 2)


def alarms_table(facts: Facts) -> Table:
    """What live health has found on each member, and how that ended."""
    rows = [
        [*map(Cell, (member.id, rule, message, member.status)), Cell(f"{step:,}", step)]
        for member in facts.run.members.values()
        for rule, step, message in member.alarms
    ]
    return Table(("member", "rule", "what was found", "the member now", "step"), rows, 4, sortable=True)


_NUMBERS = ("at step", "", "std", "seeds", "lost", "test")
"""Columns of the table of candidates between its words and the parameters; "" stands for the objective."""


@dataclass(frozen=True)
class CandidateColumns:
    """Where in the table of candidates something stands."""

    words: tuple[str, ...]

    @property
    def step(self) -> int:
        """The step of the last gate that a candidate was scored at."""
        return len(self.words)

    @property
    def score(self) -> int:
        """The objective there."""
        return len(self.words) + 1

    @property
    def first_parameter(self) -> int:
        """The parameters that were drawn begin here, in the order of `param_names`."""
        return len(self.words) + len(_NUMBERS)


def candidate_columns(run: Run) -> CandidateColumns:
    """The columns of the table of candidates; only where candidates say what they know there is one for it."""
    says = any(candidate.knowledge for candidate in run.candidates.values())
    return CandidateColumns(("candidate", "config", *_known("may know", says), "what became of it"))


def candidates_table(facts: Facts) -> Table:
    """All candidates, with a column a parameter: those that came furthest first, then by score. Sortable."""
    run = facts.run
    names = param_names(run)
    frame = facts.tables.candidates
    table = [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False, name=None)]
    table.sort(key=lambda row: (-_key(row["gate"], -1.0), _key(run.sign * row["score"], math.inf), row["candidate"]))
    rows, bold = [], None
    words = candidate_columns(run).words
    for place, row in enumerate(table):
        candidate = run.candidates[row["candidate"]]
        gate = _key(row["gate"], -1.0)
        at = run.stages[int(gate)]["until_step"] if gate >= 0 else math.nan
        rows.append(
            [
                Cell(candidate.id),
                Cell(_config(candidate, names) + _role(run, candidate)),
                *map(Cell, _known(candidate.knowledge, "may know" in words)),
                Cell(_fate(facts, candidate)),
                Cell(NONE if math.isnan(at) else f"{at:,}", at),
                *(_number(facts, row[name]) for name in ("score", "std")),
                *(_count(row[name]) for name in ("num_seeds", "num_lost")),
                _number(facts, row[run.test_metric]),
                *(_param(candidate, name) for name in names),
                _count(row["steps"]),
                Cell(duration(row["seconds"]), row["seconds"]),
            ]
        )
        if facts.best is not None and candidate.id == facts.best.candidate:
            bold = place
    head = (*words, *(name or run.objective for name in _NUMBERS), *names, "steps", "compute time")
    return Table(head, rows, len(words), sortable=True, bold=bold)


def param_names(run: Run) -> list[str]:
    """The parameters that were drawn, in order of appearance."""
    return list(dict.fromkeys(name for candidate in run.candidates.values() for name in candidate.params))


def param_text(value: object) -> str:
    """A parameter's value as tables and axes show it."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return shortened(printable(value if isinstance(value, str) else str(value)), _VALUE)


def _param(candidate: Candidate, name: str) -> Cell:
    """The value that was drawn; of a config that was not drawn, what it has under this name."""
    value = candidate.params.get(name, candidate.config.get(name))
    if value is None:
        return Cell(NONE, math.nan)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(param_text(value), float(value) if is_number else None)


def _config(candidate: Candidate, names: Sequence[str]) -> str:
    """Its name; of a config that was drawn nothing more, where columns say its parameters."""
    return "sampled" if names and not candidate.label and candidate.params else candidate.name


def _role(run: Run, candidate: Candidate) -> str:
    if candidate is run.control:
        return " (control)"
    return " (reference)" if candidate.origin == "reference" else ""


def members_table(facts: Facts) -> Table:
    """Every member; for races and comparisons, where they are what counts. Sortable."""
    run = facts.run
    rows = []
    for member in run.members.values():
        test = (member.tested or {}).get(run.test_metric, math.nan)
        candidate = run.candidates[member.candidate].name
        why = " ".join(member.reason.split())
        status = f"{member.status}: {why[-90:]}" if why else member.status
        numbers = (_number(facts, member.best), _number(facts, test), _count(member.steps))
        rows.append([*map(Cell, (member.id, candidate, status)), *numbers])
    head = ("member", "config", "status", f"best {run.objective}", "test", "steps")
    return Table(head, rows, 3, sortable=True)


def matched_table(facts: Facts) -> Table:
    """Each finisher beside the control at equal steps."""
    rows = []
    for row in facts.matched[:_MAX_MATCHED]:
        mean, pairs = row.points[-1].mean, len(row.points[-1].differences)
        last = [number(mean.value, facts.places, signed=True), ends(mean, 3), str(pairs)]
        since = [NONE if step is None else f"{step:,}" for step in (row.ahead_from, row.clear_from)]
        rows.append([Cell(row.candidate), *map(Cell, (*last, *since))])
    head = ("candidate", "minus control at the end", "95% interval", "pairs", "ahead from step", "clearly from step")
    more = len(facts.matched) - len(rows)
    return Table(head, rows, 1, f"The best {len(rows)} of {len(facts.matched)} that finished." if more else "")


def _fate(facts: Facts, candidate: Candidate) -> str:
    """``finished``, ``cut at gate 1``, ``all seeds lost``, ``waits at gate 2``...; elsewhere counts of members."""
    run, members = facts.run, list(candidate.members.values())
    last = len(run.stages) - 1
    if members and all(m.lost_stage is not None for m in members):
        return "all seeds lost"
    if run.kind != "search":
        counts = Counter(m.status for m in members)
        return ", ".join(f"{count} {status}" for status, count in counts.items())
    if any(m.status == "running" for m in members) and facts.state == "running":
        return "running"
    ended = all(m.ended for m in members)
    if candidate.stage == last and members and ended:
        return "finished (audit)" if candidate.audited else "finished"
    if run.is_finished:
        return "all seeds stopped early" if ended and members else f"cut at gate {candidate.stage + 1}"
    return f"waits at gate {candidate.stage + 1}" if any(m.steps for m in members) else "not begun"


def provenance_table(facts: Facts) -> Table:
    """What the run was made with."""
    run, provenance = facts.run, facts.tables.provenance
    git, data, machine = (provenance.get(key) or {} for key in ("git", "data", "machine"))
    commit = git.get("commit", "")
    changed = git.get("changed_files", 0)
    libraries = ", ".join(f"{k} {v}" for k, v in (provenance.get("libraries") or {}).items() if v)
    pairs = [
        ("run", str(run.plan.get("name", run.root.name))),
        ("family", called(str(run.plan.get("family", "")))),
        ("begun", str(provenance.get("created", ""))),
        ("command", " ".join(map(str, provenance.get("command") or ()))),
        ("tune-rh", str(provenance.get("tune_rh", ""))),
        ("code", f"{commit}{f', with {changed} files changed since' if changed else ''}" if commit else ""),
        ("Python", str(provenance.get("python", ""))),
        ("libraries", libraries),
        ("machine", ", ".join(str(machine[k]) for k in ("processor", "cpu_cores", "system") if machine.get(k))),
        ("data", f"{data['name']}, SHA-256 {data.get('sha256', '')}" if data.get("name") else ""),
        ("seeds", ", ".join(map(str, run.plan["seeds"]))),
    ]
    return Table(("what", "value"), [[Cell(k), Cell(v or "unknown")] for k, v in pairs], 2)


def write_csvs(run: RunTables, folder: Path) -> Sequence[str]:
    """candidates, members, curves, findings and decisions as CSV files with full precision; their names."""
    candidates = run.candidates.drop(columns=["params", "config"])
    params = [dict(p) for p in run.candidates["params"]]
    for name in dict.fromkeys(name for drawn in params for name in drawn):
        candidates[f"param.{name}"] = [p.get(name) for p in params]
    candidates["config"] = [json.dumps(dict(c), default=str) for c in run.candidates["config"]]
    frames: dict[str, pd.DataFrame] = {
        "candidates": candidates,
        "members": run.members,
        "curves": run.curves,
        "findings": run.findings,
        "decisions": run.decisions,
    }
    for name, frame in frames.items():
        texts = frame.select_dtypes(["object", "string"]).columns
        safe = frame.assign(**{column: frame[column].map(csv_cell) for column in texts}).rename(columns=csv_cell)
        write_text(folder / f"{name}.csv", safe.to_csv(index=False, lineterminator="\n"))
    return CSVS


def value_text(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds with the digits that it has; a dash for none."""
    finite = [value for value in values if math.isfinite(value)]
    mean, std = fmean(finite) if finite else math.nan, stdev(finite) if len(finite) > 1 else 0.0
    return mean_std(mean, std, decimals(std)) if std else number(mean, decimals(mean / 10.0) if mean else 3)


def _count(value: int) -> Cell:
    return Cell(f"{value:,}", value)


def _number(facts: Facts, value: float) -> Cell:
    return Cell(number(value, facts.places), value)


def _key(value: Any, absent: float) -> float:
    """A number to sort by; ``absent`` for pandas' missing ones and NaN."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return absent
    return absent if math.isnan(number) else number
