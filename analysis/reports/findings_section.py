"""Findings side by side: a row a diagnostic, a verdict a candidate over its seeds, and pictures of one seed of each.

What it is: rows for pages and Markdown from the findings that a run has on disk. What it is not: a judge; verdicts are
the diagnostics' own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from analysis.api import Estimate, Finding
from analysis.reports.plots import Picture, draw
from analysis.reports.search_facts import Facts, called
from analysis.reports.search_tables import Cell, Table, value_text
from analysis.reports.tables import NONE, number

MAX_COLUMNS = 6
"""Candidates side by side; the rest are in findings.csv."""
MAX_PICTURES = 80
"""Drawn in all, so that a page stays of a size that opens."""

SIGNS = {"pass": "✓", "warn": "!", "fail": "✗", "no_evidence": NONE}
_ORDER = ("fail", "warn", "pass", "no_evidence")  # which verdict a cell is coloured by, where seeds differ


@dataclass(frozen=True)
class Judged:
    """A candidate's cell: the worst verdict of its seeds, and how many got which."""

    worst: str
    text: str


@dataclass(frozen=True)
class Row:
    """One diagnostic.

    Attributes:
        name, title: as the command line spells it, and for readers.
        cells: in the order of the section's columns.
        summaries: what it means for each that is shown, "c0001 seed 7: ...".
        values: means over seeds side by side.
        pictures: of one seed of the best one, and of the control.
    """

    name: str
    title: str
    cells: Sequence[Judged]
    summaries: Sequence[str]
    values: Table
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Findings:
    """The section: ``columns`` are candidates, or ``run`` for findings about the run; ``notes`` in words."""

    columns: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str]


def findings(facts: Facts) -> Findings:
    """Everything that diagnostics have said about a run; without findings a note says why not."""
    found = facts.run.found
    members = [name for name, some in found.items() if some and name]
    candidates = list(dict.fromkeys(facts.records.members[name].candidate for name in members))
    if not candidates and not found.get(""):
        return Findings((), (), (_none(facts),))
    order = [s.id for s in facts.standings]
    candidates.sort(key=lambda name: order.index(name) if name in order else len(order))
    control = facts.records.control
    late = [c for c in candidates[MAX_COLUMNS:] if control is not None and c == control.id]
    shown = [*candidates[: MAX_COLUMNS - len(late)], *late]  # the control is always among them
    columns = [*shown, *(["run"] if found.get("") else [])]
    by_column = {c: list(found[""]) if c == "run" else facts.findings(c) for c in columns}
    names = dict.fromkeys(_registered_first(f.name for some in by_column.values() for f in some))
    titles = {name: _title(name) for name in names}
    budget = iter(range(MAX_PICTURES))
    rows = [_row(facts, name, titles[name], by_column, budget) for name in names]
    notes = ["Verdicts are counted over seeds, values are means ± standard deviation over seeds."]
    if len(candidates) > MAX_COLUMNS:
        notes.append(f"{len(candidates) - MAX_COLUMNS} more candidates were diagnosed: see findings.csv.")
    if next(budget, None) is None:
        notes.append(f"Only the first {MAX_PICTURES} pictures are drawn; the data of all are in findings.json.")
    return Findings(columns, rows, notes)


def _none(facts: Facts) -> str:
    if facts.state == "running":
        return "No findings yet: members are diagnosed when they have reached the end."
    name = facts.records.root.name
    return f"No diagnostic has looked at this run; `tune-rh diagnose {name}` looks at those that reached the end."


def _registered_first(names: Iterator[str]) -> list[str]:
    from analysis.registry import DIAGNOSTICS

    order = list(DIAGNOSTICS)
    return sorted(set(names), key=lambda name: (order.index(name) if name in order else len(order), name))


def _title(name: str) -> str:
    """As the diagnostic calls itself; one that this version does not know keeps its name."""
    from analysis.registry import UnknownDiagnostic, get_diagnostic

    try:
        return get_diagnostic(name).title
    except UnknownDiagnostic:
        return name


def _row(facts: Facts, name: str, title: str, by_column: dict[str, list[Finding]], budget: Iterator[int]) -> Row:
    mine = {column: [f for f in some if f.name == name] for column, some in by_column.items()}
    shown = _samples(facts, name, by_column)
    pictures = []
    for label, finding in shown:
        for plot in finding.plots:
            if next(budget, None) is None:
                break
            pictures.append(draw(plot, f"{label}: {plot.title}"))
    return Row(
        name=name,
        title=title,
        cells=[_judged(some) for some in mine.values()],
        summaries=[f"{label}: {finding.summary}" for label, finding in shown],
        values=_values(mine),
        pictures=pictures,
    )


def _judged(some: Sequence[Finding]) -> Judged:
    counts = Counter[str](f.verdict for f in some)
    if not counts:
        return Judged("no_evidence", "not asked")
    worst = next(verdict for verdict in _ORDER if counts[verdict])
    if len(counts) == 1 and len(some) == 1:
        return Judged(worst, f"{SIGNS[worst]} {_said(worst)}")
    counted = ", ".join(f"{counts[v]} {_said(v)}" for v in ("pass", "warn", "fail", "no_evidence") if counts[v])
    return Judged(worst, f"{SIGNS[worst]} {counted}")


def _said(verdict: str) -> str:
    return verdict.replace("_", " ")


def _samples(facts: Facts, name: str, by_column: dict[str, list[Finding]]) -> list[tuple[str, Finding]]:
    """What is told in full: of the best one a seed with the worst verdict, of the control one seed, of the run all."""
    control = facts.records.control
    wanted = [facts.best.id] if facts.best is not None else []
    wanted += [control.id] if control is not None and control.id not in wanted else []
    wanted = [c for c in wanted if c in by_column] or [c for c in by_column if c != "run"][:1]
    found = []
    for candidate in wanted:
        record = facts.records.candidates[candidate]
        mine = [(m.seed, f) for m in record.members.values() for f in facts.run.found.get(m.id, ()) if f.name == name]
        if mine:
            seed, finding = min(mine, key=lambda pair: _ORDER.index(pair[1].verdict))
            found.append((f"{candidate} ({called(facts.records, record)[:40]}), seed {seed}", finding))
    found += [("the run", f) for f in by_column.get("run", ()) if f.name == name]
    return found


def _values(mine: dict[str, list[Finding]]) -> Table:
    names = dict.fromkeys(value for some in mine.values() for f in some for value in f.values)
    rows = []
    for value in names:
        thresholds = [f.threshold[value] for some in mine.values() for f in some if value in f.threshold]
        cells = [
            Cell(value_text([_number(f.values[value]) for f in some if value in f.values])) for some in mine.values()
        ]
        limit = Cell(f"{thresholds[0]:g}" if thresholds else number(None, 0))
        rows.append([Cell(value.replace("_", " ")), *cells, limit])
    return Table(("value", *mine, "held against"), rows, 1)


def _number(value: Estimate | float) -> float:
    return value.value if isinstance(value, Estimate) else value
