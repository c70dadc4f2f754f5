"""The report of a run: one page that holds everything inside itself, the same as Markdown, and its tables as CSV.

Scripts of the page sort, filter and draw; without them its words, tables and most of its pictures are there.

It works while a search runs, after one that lost all its members, and for races and comparisons, whose own reports it
takes in.
"""

from __future__ import annotations

import base64
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from analysis.diagnose.api import Baseline, Finding
from analysis.extraction import EXTRACT, Extracted, kept
from analysis.reports.page import figures as figures
from analysis.reports.page import tables as search_tables
from analysis.reports.page.embedded import embedded, shown
from analysis.reports.page.extracted import extracted
from analysis.reports.page.facts import Facts, Outlook, gather
from analysis.reports.page.findings import Findings, findings
from analysis.reports.page.overview import overview
from analysis.reports.page.tables import Table
from analysis.reports.page.words import Answer, answers, state_line
from analysis.reports.plots import Picture, png_picture
from analysis.reports.run_findings import renewed
from analysis.reports.tables import escaped, markdown_table, write_text
from analysis.tables import RunTables
from analysis.view import Run
from trainables.given.module import called

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_PAGE, _TEXT = "index.html", "report.md"
_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("charts.js", "curves.js", "parameters.js", "candidates.js", "page.js")


@dataclass(frozen=True)
class OwnReport:
    """What the report of a race or comparison says: its lines, the verdict first, PNGs by caption, and its own file."""

    lines: Sequence[str]
    pictures: Mapping[str, bytes]
    file: str


@dataclass(frozen=True)
class _Section:
    """A part of the report; empty ones (no words, pictures, tables, charts) are left out.

    ``charts`` are the places that scripts of the page draw in, ``files`` tables beside it that hold more.
    """

    id: str
    title: str
    words: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[str] = ()
    files: Sequence[str] = ()


class Beside(TypedDict, total=False):
    """What a page says that does not stand in its run.

    ``writing``: whether some process is writing the run right now. ``notes``, ``unit``, ``baselines``,
    ``baselines_note``, ``outlook``: see `Facts`. ``own``: what the run's own report says, for races and comparisons.
    ``about_run``: findings about the run as it is now, in place of those of these names that it has on disk.
    """

    writing: bool
    notes: Sequence[str]
    unit: str
    baselines: Sequence[Baseline]
    baselines_note: str
    own: OwnReport | None
    about_run: Sequence[Finding]
    outlook: Outlook | None


@dataclass(frozen=True)
class _Content:
    """All parts of a report, in whatever form it is written."""

    facts: Facts
    first: Sequence[Answer]
    parts: Sequence[_Section]
    verdicts: Findings


def write(run: Run, out: Path | None = None, **beside: Unpack[Beside]) -> Path:
    """Write the report of a run as it is now; the path of the page.

    Args:
        out: write the page there and nothing else; None: ``report/`` in the run's folder, with report.md and CSVs.
        beside: see `Beside`.
    """
    content = _content(run, True, beside)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, _page(content, ()))
        return out
    own, folder = beside.get("own"), run.root / "report"
    folder.mkdir(parents=True, exist_ok=True)
    files = [_TEXT, *search_tables.write_csvs(content.facts.tables, folder)]
    files += [own.file] if own is not None else []
    write_text(folder / _TEXT, _markdown(content))
    write_text(folder / _PAGE, _page(content, files, "../members"))
    return folder / _PAGE


def served(run: Run, tag: str, *, draws: bool, **beside: Unpack[Beside]) -> str:
    """The page of a server, which asks for the next by ``tag``; without ``draws`` only scripts draw."""
    return _page(_content(run, draws, beside), search_tables.CSVS, "members", tag)


def _content(run: Run, draws: bool, beside: Beside) -> _Content:
    facts, own = facts_of(run, **beside), beside.get("own")
    first = answers(facts) if own is None else [Answer("", line) for line in (*own.lines, *facts.notes)]
    return _Content(facts, first, _sections(facts, draws, own), findings(facts, draws=draws))


def facts_of(run: Run, **beside: Unpack[Beside]) -> Facts:
    """Everything that a page of the run says."""
    tables = RunTables(run)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Unreadable findings warn when they are first looked at.
        current = renewed(beside.get("about_run", ()), tables.by_member.get("", ()))
        found = _extracted(run)
    if current:
        tables.by_member[""] = current
    texts = [*beside.get("notes", ()), *(str(w.message) for w in caught if issubclass(w.category, UserWarning))]
    return gather(
        tables,
        _state(run, beside.get("writing", False)),
        beside.get("unit", ""),
        beside.get("baselines", ()),
        beside.get("baselines_note", ""),
        [f"{text.removeprefix(f'{run.root}/')}." for text in texts],
        beside.get("outlook"),
        found,
    )


def _extracted(run: Run) -> Extracted | None:
    """Formulas of a winner in the run's ``report/``; None, with a warning, where they cannot be read."""
    try:
        return kept(run.root / "report")
    except ValueError as error:
        warnings.warn(f"{run.root}/report/{EXTRACT}: passed over: {error}", stacklevel=2)
        return None


def _sections(facts: Facts, draws: bool, own: OwnReport | None) -> list[_Section]:
    """All parts but findings, candidates and provenance, in the order of the report; empty ones are left out."""
    kind = facts.run.kind
    sections = [_own_section(own)] if own is not None else []
    if kind == "search":
        sections += [_baselines(facts, draws), _funnel(facts), _curves(facts, draws), _importance(facts, draws)]
    else:
        sections.append(_curves(facts, draws))
    formulas = extracted(facts, draws=draws)
    sections.append(_Section("extraction", "What it has learnt", formulas.words, formulas.pictures, formulas.tables))
    alarms = search_tables.alarms_table(facts)
    if alarms.rows:
        words = ["Rules that a member broke in training, each once until it held again (docs/health.md)."]
        sections.append(_Section("health", "Live health", words, tables=[alarms]))
    return [part for part in sections if part.words or part.pictures or part.tables or part.charts]


def _markdown(content: _Content) -> str:
    """The report without its pictures."""
    facts, first, parts, verdicts = content.facts, content.first, content.parts, content.verdicts
    text = [f"# {escaped(_title(facts))}", "", f"**{_prose(state_line(facts))}**", ""]
    for answer in first:
        text.append(f"- **{answer.word}**: {_prose(answer.text)}" if answer.word else f"- {_prose(answer.text)}")
        text += [f"  - {_prose(point)}" for point in answer.points]
    text += ["", "Figures are in index.html.", ""]
    for part in parts:
        text += [f"## {part.title}", ""]
        for words in part.words:
            text += [_prose(words), ""]
        text += _markdown_tables(part.tables)
    text += ["## Findings", ""] if verdicts else []
    for row in verdicts.run:
        text += [f"### {escaped(row.title)}: {row.cells[0].text}", "", *map(escaped, row.summaries), ""]
        text += _markdown_tables(row.tables)
    for words in verdicts.notes:
        text += [_prose(words), ""]
    if verdicts.rows:
        rows = [[escaped(row.title), *(cell.text for cell in row.cells)] for row in verdicts.rows]
        text += [*markdown_table(["diagnostic", *verdicts.columns], rows, len(verdicts.columns) + 1), ""]
        for row in verdicts.rows:
            text += [f"### {escaped(row.title)}", "", *(f"- {escaped(words)}" for words in row.summaries), ""]
            text += _markdown_tables(row.tables)
    for title, table in (("All candidates", search_tables.candidates_table(facts)), *_last(facts)):
        text += [f"## {title}", "", *_markdown_table(table), ""]
    return "\n".join(text)


def _page(content: _Content, files: Sequence[str], members: str = "", live: str = "") -> str:
    facts, verdicts = content.facts, content.verdicts
    return rendered(
        "report.html.j2",
        _SCRIPTS,
        live=live,
        title=_title(facts),
        state=facts.state,
        state_line=state_line(facts),
        answers=content.first,
        overview=overview(facts) if facts.run.kind == "search" else None,
        objective=facts.run.objective,
        sections=content.parts,
        verdicts=verdicts,
        candidates=search_tables.candidates_table(facts),
        last=_last(facts),
        plan=(facts.run.root / "plan.toml").read_text(encoding="utf-8"),
        files=files,
        data=embedded(facts),
        members=members,
    )


def rendered(template: str, scripts: Sequence[str], *, live: str = "", **content: object) -> str:
    """A page with its scripts inside, which are all that it may run."""
    script = "\n".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in scripts)
    written = datetime.now(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    page = _environment().get_template(template)
    return page.render(content, live=live, script=script, policy=_policy(script, live), written=written)


def _policy(script: str, live: str) -> str:
    """What the page may do: run its own script and nothing else, and load nothing; a live one only its own server's."""
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    parts: tuple[str, ...] = (
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
    )
    parts += ("connect-src 'self'",) if live else ()
    return "; ".join((*parts, "base-uri 'none'", "form-action 'none'"))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["coded"] = _coded
    return environment


def _coded(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    from markupsafe import Markup

    # Joining escapes what is no markup yet.
    parts = (Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(_split(text)))
    return Markup("").join(parts)


def _split(text: str) -> list[str]:
    """At backticks that come in pairs."""
    return text.split("`") if text.count("`") % 2 == 0 else [text]


def _title(facts: Facts) -> str:
    words = {"search": "a search", "race": "a race of seeds", "comparison": "a comparison"}
    name = str(facts.run.plan.get("name", facts.run.root.name))
    return f"{name}: {words[facts.run.kind]} of {called(facts.run.plan.get('family', 'an unknown family'))}"


def _state(run: Run, writing: bool) -> str:
    if writing and not run.is_finished:
        return "running"
    if run.ended:
        return run.ended
    return "killed" if run.slots else "not begun"


def _own_section(own: OwnReport) -> _Section:
    pictures = [png_picture(png, caption) for caption, png in own.pictures.items()]
    return _Section("own", "What it shows", [f"Its own report, {own.file}, has the tables."], pictures)


def _baselines(facts: Facts, draws: bool) -> _Section:
    if not facts.baselines:
        words = [f"No baselines: {facts.baselines_note}."] if facts.baselines_note else []
        return _Section("baselines", "Baselines", words)
    words = ["Predictors without a learned network, on the test split of the run's own data."]
    return _Section(
        "baselines", "Baselines", words, _drawn(facts, draws, figures.baselines), [search_tables.baselines_table(facts)]
    )


def _funnel(facts: Facts) -> _Section:
    tables = [search_tables.funnel_table(facts)]
    regret = search_tables.regret_table(facts)
    if regret.rows:
        tables.append(regret)
    if facts.seeds:
        tables.append(search_tables.seeds_table(facts))
    audit = facts.regret.audit
    words = [
        "How many candidates entered each stage, were scored at its gate, and passed, control and references left out.",
        facts.regret.note,
    ]
    if audit is not None:
        words.append(
            f"Audit: {len(audit.audited)} stopped candidates were run to the end, {len(audit.better)} of them were "
            "better than all that got there by merit."
        )
    return _Section("funnel", "Funnel and gates", words, (), tables, files=["decisions.csv"])


def _curves(facts: Facts, draws: bool) -> _Section:
    """Means over seeds of the best few and the control, drawn by scripts, and what was made of curves."""
    if not shown(facts.run, facts.standings):
        return _Section("curves", "Curves")
    is_search = facts.run.kind == "search"
    pictures = _drawn(facts, draws and is_search, figures.matched, figures.quality)
    tables = [search_tables.matched_table(facts)] if is_search and facts.matched else []
    return _Section("curves", "Curves", (), pictures, tables, ["curves-chart"], ["curves.csv"])


def _importance(facts: Facts, draws: bool) -> _Section:
    title = "Which hyperparameters mattered"
    if not search_tables.param_names(facts.run):
        return _Section("importance", title)
    tables = [search_tables.importance_table(facts)] if facts.importance.shares else []
    return _Section(
        "importance", title, [facts.importance.note], _drawn(facts, draws, figures.importance), tables, ["slices"]
    )


def _drawn(facts: Facts, draws: bool, *figures: Callable[[Facts], Picture | None]) -> list[Picture]:
    return [picture for draw in figures if draws and (picture := draw(facts)) is not None]


def _last(facts: Facts) -> list[tuple[str, Table]]:
    tables: list[tuple[str, Table]] = []
    if facts.run.kind != "search":
        tables.append(("All members", search_tables.members_table(facts)))
    return [*tables, ("Provenance", search_tables.provenance_table(facts))]


def _prose(text: str) -> str:
    """A sentence of ours: its backticks are code, the rest stands as it is."""
    return "".join(f"`{part}`" if i % 2 else escaped(f"x{part}x")[1:-1] for i, part in enumerate(_split(text)))


def _markdown_tables(some: Sequence[Table]) -> list[str]:
    """Each with its caption before it and a blank line behind."""
    lines = []
    for table in some:
        lines += [*([escaped(table.caption), ""] if table.caption else []), *_markdown_table(table), ""]
    return lines


def _markdown_table(table: Table) -> list[str]:
    rows = [[escaped(cell.text) for cell in row] for row in table.rows]
    return markdown_table([escaped(name) for name in table.header], rows, table.text_columns)
