"""The report of a run on disk: gathers what `analysis.reports` needs and has it written; changes only ``report/``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from analysis.view import Run
from trainables.errors import DataError, UnknownFamily
from trainables.registry import get_family
from tune_rh.errors import PlanError, RunError
from tune_rh.plan.cost import expected
from tune_rh.record.journal import RunPaths
from tune_rh.results.own_reports import own_report, unit
from tune_rh.results.reading import Reading
from tune_rh.run import runs

if TYPE_CHECKING:
    from analysis.diagnose.api import Baseline, Finding
    from analysis.reports.page.facts import Outlook
    from analysis.reports.page.page import Beside, OwnReport

Measured = tuple["Sequence[Baseline]", str]
"""Baselines, or why there are none."""
_PICTURES = {
    "race.png": "Curves of all seeds, and the expected best of k.",
    "difference.png": "Values by seed, and B - A by step.",
    "bisection.png": "Positions of the midpoints between A and B.",
}


@dataclass(frozen=True)
class AboutRun:
    """What the diagnostics of whole runs say; ``seconds`` by their names."""

    findings: Sequence[Finding]
    seconds: Mapping[str, float]

    def keep(self, paths: RunPaths) -> Path | None:
        """Write it where reports and tables of the run read it: the path; None where nothing was asked."""
        from analysis.reports.run_findings import keep

        return keep(paths.report, self.findings, self.seconds) if self.findings else None


def about_run(run: Run, names: Sequence[str] | None = None) -> AboutRun:
    """Ask the diagnostics of whole runs (those of ``names``; None: all that its family has) about the run as it is.

    Raises:
        analysis.diagnose.registry.UnknownDiagnostic: one of ``names`` is not for runs of this family.
    """
    from analysis.diagnose.registry import diagnose_run

    took: dict[str, float] = {}
    try:
        findings = diagnose_run(run, names, lambda finding, seconds: took.update({finding.name: seconds}))
    except UnknownFamily:
        return AboutRun((), {})  # its module is not there, and its diagnostics neither
    return AboutRun(findings, took)


def write(reading: Reading, data_dir: Path, out: Path | None = None, about: AboutRun | None = None) -> Path:
    """Write the report of a run; the path of its page, which is ``out`` where the page alone is wanted.

    Data sets in ``data_dir`` are for the baselines. ``about`` is what the diagnostics of whole runs said, where they
    have been asked already.
    """
    from analysis.reports.page import page

    paths, run = reading.paths, reading.run
    about = about_run(run) if about is None else about
    measured = report_baselines(reading, data_dir, keep=out is None)
    with TemporaryDirectory() as beside:
        content = _beside(reading, measured, about, paths.report if out is None else Path(beside))
    if out is None:
        about.keep(paths)
    return page.write(run, out, **content)


def write_versus(one: Reading, other: Reading, out: Path | None = None) -> Path:
    """Write the page of two runs beside each other, into the folder of the first where ``out`` is None; its path.

    Raises:
        RunError: they cannot be compared: another family, objective or mode.
    """
    from analysis.reports.page import page, versus

    a, b = (
        page.facts_of(r.run, writing=r.is_written, notes=r.notes, unit=unit(r.run.plan["family"])) for r in (one, other)
    )
    if why := versus.incomparable(a, b):
        raise RunError(f"{one.paths.root.name} and {other.paths.root.name} cannot be compared: {why}")
    return versus.write(a, b, one.paths.report / f"against-{other.paths.root.name}.html" if out is None else out)


def served(reading: Reading, measured: Measured, tag: str) -> str:
    """The page as a server has it: while the run goes on, without what takes long to find out or to draw."""
    from analysis.reports.page import page

    about = AboutRun((), {}) if reading.is_written else about_run(reading.run)
    with TemporaryDirectory() as beside:
        content = _beside(reading, measured, about, Path(beside))
    return page.served(reading.run, tag, draws=not reading.is_written, **content)


def report_baselines(reading: Reading, data_dir: Path, *, keep: bool) -> Measured:
    """As `run_baselines`, which are measured for a search only."""
    if reading.run.kind != "search":
        return (), "they are measured for a search only"
    return run_baselines(reading, data_dir, keep=keep)


def _beside(reading: Reading, measured: Measured, about: AboutRun, folder: Path) -> Beside:
    """What the page says that does not stand in its run; the run's own report is written into ``folder``."""
    return {
        "writing": reading.is_written,
        "notes": reading.notes,
        "unit": unit(reading.run.plan["family"]),
        "baselines": measured[0],
        "baselines_note": measured[1],
        "own": _own_report(reading, folder),
        "about_run": about.findings,
        "outlook": _outlook(reading),
    }


def _outlook(reading: Reading) -> Outlook | None:
    """What is expected to be left at the pace so far, if gates pass their quota; None before there is a pace."""
    from analysis.reports.page.facts import Outlook

    spent, slots = reading.run.spent, reading.run.slots
    if not (reading.is_written and spent.steps and slots):
        return None
    steps = sum(row.steps for row in expected(reading.history.plan))
    return Outlook(steps, max(0, steps - spent.steps) * spent.slot_seconds / spent.steps / slots)


def run_baselines(reading: Reading, data_dir: Path, *, keep: bool) -> Measured:
    """The baselines on the run's own data, or why there are none; no reason where the family has none.

    They are those that were kept beside the run's report, else measured; then they are kept there if ``keep``.
    """
    from analysis import baselines
    from trainables.errors import TrainableError

    run = reading.run
    family, data = run.plan["family"], run.provenance.get("data") or {}
    if not _has_baselines(family):
        return (), ""
    name, digest = data.get("name"), data.get("sha256")
    if not name or not digest:
        return (), "provenance.json does not say which data it was trained on"

    def make() -> Sequence[Baseline]:
        first = next(iter(run.candidates.values()), None)  # its targets are those of all candidates
        folder = _folder_of_data(family, name, digest, (data_dir, Path(data["folder"])))
        return baselines.measure(family, name, folder, None if first is None else first.config)

    try:
        return baselines.kept(reading.paths.report / "baselines.json", digest, make, keep=keep), ""
    except TrainableError as error:
        return (), f"the data cannot be used ({' '.join(str(error).split())})"


def _has_baselines(family: str) -> bool:
    try:
        return bool(get_family(family).baselines)
    except UnknownFamily:
        return False


def _folder_of_data(family: str, name: str, digest: str, folders: Sequence[Path]) -> Path:
    """The first folder that holds the data which the run was made with; raises DataError if there is none."""
    source = runs.data_source(get_family(family))
    problems = []
    for folder in dict.fromkeys(folders):
        try:
            if source.digest(name, folder) == digest:
                return folder
            problems.append(f"{name} in {folder} is another version than the run's")
        except DataError as error:
            problems.append(str(error))
    raise DataError("; ".join(problems))


def _own_report(reading: Reading, folder: Path) -> OwnReport | None:
    """The report of a race or comparison, written into ``folder``."""
    from analysis.reports.page.page import OwnReport

    try:
        own = own_report(reading.run, reading.history)
    except (PlanError, UnknownFamily):
        return _written_before(reading.paths, reading.run.kind)  # only its family can tell what lies between A and B
    if own is None:
        return None
    report, facts = own
    written = report.write(facts, folder)
    return OwnReport(report.lines(facts), _pictures(folder), written.name)


def _written_before(paths: RunPaths, kind: str) -> OwnReport | None:
    """The report that lies in the run's folder: its first lines and pictures; None if there is none."""
    from analysis.reports.page.page import OwnReport

    path = paths.report / f"{kind}.md"
    if not path.is_file():
        return None
    head = path.read_text(encoding="utf-8").partition("\n![")[0].splitlines()
    lines = [line.removeprefix("- ").strip("*") for line in head if line.startswith(("- ", "**"))]
    return OwnReport([re.sub(r"\\(\W)", r"\1", line) for line in lines], _pictures(paths.report), path.name)


def _pictures(folder: Path) -> dict[str, bytes]:
    return {text: (folder / name).read_bytes() for name, text in _PICTURES.items() if (folder / name).is_file()}
