"""The report of a run on disk: gathers what `analysis.reports` needs and has it written; changes only ``report/``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from trainables.errors import DataError
from trainables.registry import get_family
from tune_rh import runs
from tune_rh.errors import JournalCorrupt, TuneError
from tune_rh.journal import RunPaths

if TYPE_CHECKING:
    from analysis.api import Finding
    from analysis.records import Records
    from analysis.reports.search import OwnReport

_PICTURES = {
    "race.png": "Curves of all seeds, and the expected best of k.",
    "difference.png": "Values by seed, and B - A by step.",
    "bisection.png": "Positions of the probes between A and B.",
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


def about_run(paths: RunPaths, names: Sequence[str] | None = None) -> AboutRun:
    """Ask the diagnostics of whole runs about the run as it is now; nothing is written.

    Args:
        paths: of the run.
        names: which ones; None: all of its family, which may have none.

    Raises:
        JournalCorrupt: plan or journal are damaged.
        analysis.registry.UnknownDiagnostic: one of ``names`` does not exist, or is not for runs of this family.
    """
    from analysis.records import RunUnreadable, read_run

    try:
        return _asked(read_run(paths.root), names)
    except RunUnreadable as error:
        raise JournalCorrupt(str(error)) from error


def write(paths: RunPaths, data_dir: Path, out: Path | None = None) -> Path:
    """Write the report of a run, with what diagnostics say about all of it as it is now; the path of its page.

    Args:
        paths: of the run.
        data_dir: where data sets lie, for the baseline ladder; without them the report says so.
        out: see `analysis.reports.search.write`.

    Raises:
        JournalCorrupt: plan or journal are damaged.
    """
    from analysis.records import RunUnreadable, read_run
    from analysis.reports import search

    try:
        records = read_run(paths.root)
        rungs, why = _ladder(paths, records, data_dir, keep=out is None)
        with TemporaryDirectory() as beside:
            own = _own_report(paths, records, paths.report if out is None else Path(beside))
        about = _asked(records)
        if out is None:
            about.keep(paths)
        return search.write(
            paths.root,
            out,
            writing=_is_written(paths),
            ladder=rungs,
            ladder_note=why,
            own=own,
            about_run=about.findings,
        )
    except RunUnreadable as error:
        raise JournalCorrupt(str(error)) from error


def _asked(records: Records, names: Sequence[str] | None = None) -> AboutRun:
    from analysis.registry import diagnose_run

    took: dict[str, float] = {}
    findings = diagnose_run(records, names, lambda finding, seconds: took.update({finding.name: seconds}))
    return AboutRun(findings, took)


def _is_written(paths: RunPaths) -> bool:
    try:
        return runs.is_locked(paths)
    except OSError:
        return False  # a copy that cannot be written to is nobody's search


def _ladder(paths: RunPaths, records: Records, data_dir: Path, *, keep: bool) -> tuple[Sequence[Any], str]:
    """The baselines on the run's own data, or why there are none."""
    from analysis import baselines
    from trainables.errors import TrainableError

    family = str(records.plan.get("family"))
    data = records.provenance.get("data") or {}
    if records.kind != "search" or not get_family(family).baselines:
        return (), "there are none for this family"
    name, digest = data.get("name"), data.get("sha256")
    if not name or not digest:
        return (), "provenance.json does not say which data it was trained on"

    def make() -> Sequence[Any]:
        first = next(iter(records.candidates.values()), None)
        folder = _folder_of_data(family, name, digest, (data_dir, Path(data["folder"])))
        return baselines.measure(family, name, folder, None if first is None else first.config)

    try:
        return baselines.kept(paths.report / "baselines.json", digest, make, keep=keep), ""
    except TrainableError as error:
        return (), f"the data cannot be used ({' '.join(str(error).split())})"


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


def _own_report(paths: RunPaths, records: Records, folder: Path) -> OwnReport | None:
    """What the report of a race or comparison says as things stand; None for a search, or if it cannot be made.

    It is written into ``folder``.
    """
    from analysis.reports import comparison, race
    from analysis.reports.search import OwnReport
    from tune_rh import conclusions

    if records.kind == "search":
        return None
    try:
        _, history = runs.replay(paths)
    except TuneError:
        return _written_before(paths, records.kind)  # of another version, that can only be read
    if records.kind == "race":
        raced = conclusions.as_race(paths, history)
        written, lines = race.write(raced, folder), race.lines(raced)
    else:
        compared = conclusions.as_comparison(paths, history)
        written, lines = comparison.write(compared, folder), comparison.lines(compared)
    return OwnReport(lines, _pictures(folder), written.name)


def _written_before(paths: RunPaths, kind: str) -> OwnReport | None:
    """The report that lies in the run's folder: its first lines and pictures; None if there is none."""
    from analysis.reports.search import OwnReport

    path = paths.report / f"{kind}.md"
    if not path.is_file():
        return None
    head = path.read_text().partition("\n![")[0].splitlines()
    said = [line.removeprefix("- ").strip("*") for line in head if line.startswith(("- ", "**"))]
    return OwnReport([re.sub(r"\\(\W)", r"\1", line) for line in said], _pictures(paths.report), path.name)


def _pictures(folder: Path) -> dict[str, bytes]:
    return {text: (folder / name).read_bytes() for name, text in _PICTURES.items() if (folder / name).is_file()}
