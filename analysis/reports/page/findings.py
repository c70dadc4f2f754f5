"""Findings side by side: a row a diagnostic, a verdict a candidate over its seeds, and pictures of one seed of each.

The run's own findings, read from disk; verdicts are the diagnostics' own. Findings about the whole run stand apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from analysis.diagnose.api import Finding, Plot
from analysis.reports.page.facts import Facts
from analysis.reports.page.tables import Cell, Table, value_text
from analysis.reports.plots import Picture, draw
from analysis.reports.run_findings import tables as run_tables
from analysis.reports.tables import NONE
from analysis.stats.interval import Interval

_MANY_SILENT = 3  # diagnostics without evidence on any model are told of together from here on
_MAX_COLUMNS = 6  # candidates side by side; the rest are in findings.csv
_MAX_PICTURES = 80  # drawn in all, so that a page stays of a size that opens
_SIGNS = {"pass": "✓", "warn": "!", "fail": "✗", "no_evidence": NONE}
_ORDER = ("fail", "warn", "pass", "no_evidence")  # which verdict a cell is coloured by, where seeds differ


@dataclass(frozen=True)
class _Judged:
    """A candidate's cell: the worst verdict of its seeds, and how many got which."""

    worst: str
    text: str


@dataclass(frozen=True)
class _Row:
    """One diagnostic.

    Attributes:
        cells: in the order of the section's columns.
        summaries: what it means for each that is shown, "c0001 seed 7: ...".
        tables: of models, means over seeds side by side.
        pictures: of one seed of the best one, and of the control.
    """

    name: str
    title: str
    cells: Sequence[_Judged]
    summaries: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Findings:
    """The section: candidates as columns, what was asked of models as rows, and of the run as rows with one cell."""

    columns: Sequence[str]
    rows: Sequence[_Row]
    run: Sequence[_Row]
    notes: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.rows or self.run or self.notes)


def findings(facts: Facts, *, draws: bool = True) -> Findings:
    """Everything that diagnostics have said about a run; without findings about models a note says why not."""
    by_member = facts.tables.by_member
    budget = iter(range(_MAX_PICTURES if draws else 0))
    run = [_run_row(facts, finding, budget) for finding in _registered_first(facts, by_member.get("", []))]
    members = [name for name, some in by_member.items() if some and name]
    candidates = list(dict.fromkeys(facts.run.members[name].candidate for name in members))
    if not candidates:
        return Findings((), (), run, (_none(facts),) if facts.diagnostics else ())
    order = [s.candidate for s in facts.standings]
    candidates.sort(key=lambda name: order.index(name) if name in order else len(order))
    control = facts.run.control
    late = [c for c in candidates[_MAX_COLUMNS:] if control is not None and c == control.id]
    columns = [*candidates[: _MAX_COLUMNS - len(late)], *late]  # the control is always among them
    by_column = {c: facts.findings(c) for c in columns}
    names = dict.fromkeys(f.name for f in _registered_first(facts, (f for some in by_column.values() for f in some)))
    silent = [name for name in names if _is_silent(name, by_column)]
    silent = silent if len(silent) >= _MANY_SILENT else []
    rows = [_row(facts, name, by_column, budget) for name in names if name not in silent]
    rows += [_silent_row(facts, silent, by_column)] if silent else []
    notes = ["Verdicts are counted over seeds, values are means ± standard deviation over seeds."]
    if len(candidates) > _MAX_COLUMNS:
        notes.append(f"{len(candidates) - _MAX_COLUMNS} more candidates were diagnosed: see findings.csv.")
    if draws and next(budget, None) is None:
        notes.append(f"Only the first {_MAX_PICTURES} pictures are drawn; the data of all are in findings.json.")
    return Findings(columns, rows, run, notes)


def _none(facts: Facts) -> str:
    if facts.state == "running":
        return "No findings yet: members are diagnosed when they have reached the end."
    command = f"`tune-rh diagnose {facts.run.root.name}`"
    return f"No diagnostic has looked at a model of this run; {command} looks at those that reached the end."


def _registered_first(facts: Facts, some: Iterable[Finding]) -> list[Finding]:
    order = list(facts.diagnostics)
    return sorted(some, key=lambda f: (order.index(f.name) if f.name in order else len(order), f.name))


def _title(facts: Facts, name: str) -> str:
    """As the diagnostic calls itself; the name of a diagnostic that this version does not know."""
    known = facts.diagnostics
    return known[name].title if name in known else name


def _row(facts: Facts, name: str, by_column: dict[str, list[Finding]], budget: Iterator[int]) -> _Row:
    mine = {column: [f for f in some if f.name == name] for column, some in by_column.items()}
    samples = _samples(facts, name, by_column)
    captions = [(plot, f"{label}: {plot.title}") for label, finding in samples for plot in finding.plots]
    return _Row(
        name=name,
        title=_title(facts, name),
        cells=[_judged(some) for some in mine.values()],
        summaries=[f"{label}: {finding.summary}" for label, finding in samples],
        tables=[_values(mine)],
        pictures=_drawn(captions, budget),
    )


def _is_silent(name: str, by_column: dict[str, list[Finding]]) -> bool:
    return all(f.verdict == "no_evidence" for some in by_column.values() for f in some if f.name == name)


def _silent_row(facts: Facts, names: Sequence[str], by_column: dict[str, list[Finding]]) -> _Row:
    """What found nothing to judge from in any model, once for all of it."""
    told = [(_title(facts, name), _samples(facts, name, by_column)[:1]) for name in names]
    return _Row(
        name="without_evidence",
        title=f"{len(names)} diagnostics that have nothing to look at",
        cells=[_Judged("no_evidence", f"{_SIGNS['no_evidence']} no evidence") for _ in by_column],
        summaries=[f"{title}: {finding.summary}" for title, some in told for _, finding in some],
        tables=[],
        pictures=[],
    )


def _run_row(facts: Facts, finding: Finding, budget: Iterator[int]) -> _Row:
    return _Row(
        name=finding.name,
        title=_title(facts, finding.name),
        cells=[_judged([finding])],
        summaries=[finding.summary],
        tables=run_tables(facts, [finding]),
        pictures=_drawn([(plot, plot.title) for plot in finding.plots], budget),
    )


def _drawn(captions: Iterable[tuple[Plot, str]], budget: Iterator[int]) -> list[Picture]:
    """As many as the budget has left."""
    return [draw(plot, caption) for (plot, caption), _ in zip(captions, budget, strict=False)]


def _judged(some: Sequence[Finding]) -> _Judged:
    counts = Counter[str](f.verdict for f in some)
    if not counts:
        return _Judged("no_evidence", "not asked")
    worst = next(verdict for verdict in _ORDER if counts[verdict])
    words = {verdict: verdict.replace("_", " ") for verdict in ("pass", "warn", "fail", "no_evidence")}
    if len(some) == 1:
        return _Judged(worst, f"{_SIGNS[worst]} {words[worst]}")
    counted = ", ".join(f"{counts[verdict]} {text}" for verdict, text in words.items() if counts[verdict])
    return _Judged(worst, f"{_SIGNS[worst]} {counted}")


def _samples(facts: Facts, name: str, by_column: dict[str, list[Finding]]) -> list[tuple[str, Finding]]:
    """What is told in full: of the best one a seed with the worst verdict, of the control one seed."""
    control = facts.run.control
    wanted = [facts.best.candidate] if facts.best is not None else []
    wanted += [control.id] if control is not None and control.id not in wanted else []
    wanted = [c for c in wanted if c in by_column] or list(by_column)[:1]
    samples = []
    for candidate in wanted:
        record = facts.run.candidates[candidate]
        mine = [
            (m.seed, f) for m in record.members.values() for f in facts.tables.by_member.get(m.id, ()) if f.name == name
        ]
        if mine:
            seed, finding = min(mine, key=lambda pair: _ORDER.index(pair[1].verdict))
            samples.append((f"{candidate} ({record.name[:40]}), seed {seed}", finding))
    return samples


def _values(mine: dict[str, list[Finding]]) -> Table:
    names = dict.fromkeys(value for some in mine.values() for f in some for value in f.values)
    rows = []
    for value in names:
        thresholds = [f.threshold[value] for some in mine.values() for f in some if value in f.threshold]
        measured = ([f.values[value] for f in some if value in f.values] for some in mine.values())
        cells = [Cell(value_text([x.value if isinstance(x, Interval) else x for x in xs])) for xs in measured]
        rows.append([Cell(value.replace("_", " ")), *cells, Cell(_limit(thresholds))])
    return Table(("value", *mine, "held against"), rows, 1)


def _limit(thresholds: Sequence[float]) -> str:
    """The limit; the lowest and the highest where each model has its own."""
    if not thresholds:
        return NONE
    ends = [f"{end:.3g}" for end in (min(thresholds), max(thresholds))]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
