"""The end of a session or of a run: what is printed, exported to ``best/``, and written as a report."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console

from analysis.diagnose.api import Baseline
from tune_rh.cli import tables
from tune_rh.errors import DONE, INTERRUPTED, SOME_MEMBERS_FAILED, ExportError
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.results.export import export
from tune_rh.results.own_reports import own_report
from tune_rh.results.reading import Reading, read_provenance
from tune_rh.results.reporting import about_run, run_baselines, write
from tune_rh.run.execute import Outcome, Place
from tune_rh.run.runs import companions, recorded_data_dir, resume_command
from tune_rh.watch.spared import spared


def exit_code(paths: RunPaths, place: Place, outcome: Outcome, to: Console) -> int:
    """Print how to go on with a run that was stopped, and which members failed; the exit code of the command."""
    if outcome.ending == "finished":
        return SOME_MEMBERS_FAILED if _failed(outcome.history, to) else DONE
    saved = outcome.ending == "stopped"
    what = "Stopped; everything is saved." if saved else "Quit at once: what was not saved yet is trained again."
    to.print(f"{what} Go on with:")
    options = [] if place.runner == "ray" else ["--runner", place.runner]
    options += [] if place.address == "local" else ["--address", place.address]
    options += [] if place.data_dir == recorded_data_dir(paths) else ["--data-dir", str(place.data_dir)]
    options += ["--ship-data"] * place.ship_data
    options += [] if place.mirror is None else ["--mirror", place.mirror]
    to.print(f"  {resume_command(paths, *options)}", soft_wrap=True)
    return INTERRUPTED


def conclude(paths: RunPaths, history: History, data_dir: Path, to: Console) -> None:
    """Print what came of the run, by its kind, and leave its files."""
    reading = Reading(paths, history, is_written=True, provenance=read_provenance(paths))
    to.print()
    if reading.run.kind == "search":
        _conclude_search(reading, data_dir, to)
    else:
        with _spared("the result", paths, to):
            own = own_report(reading.run, history)
            for line in own[0].lines(own[1]) if own is not None else ():
                to.print(line, soft_wrap=True)
        if reading.run.kind == "race" and any(member.tested is not None for member in reading.run.members.values()):
            _export(reading, data_dir, to, ())
    with _spared("the report", paths, to):
        about = about_run(reading.run)
        if about.findings:
            to.print(tables.findings_table("the whole run", about.findings))
        to.print(f"Report: {write(reading, data_dir, about=about)}", soft_wrap=True)


def _conclude_search(reading: Reading, data_dir: Path, to: Console) -> None:
    history, run = reading.history, reading.run
    with _spared("the result", reading.paths, to):
        to.print(tables.funnel_table(history.plan, run.funnel))
        to.print(tables.ranking_table(history.plan, run.ranking))
        to.print(tables.cost_line(history), soft_wrap=True)
        for sentence in run.remarks:
            to.print(sentence, soft_wrap=True)
    if not any(row.may_win for row in run.ranking):
        to.print("No candidate finished with a finite score: nothing to export.")
        return
    baselines: Sequence[Baseline] = ()
    with _spared("the comparison with baselines", reading.paths, to):
        baselines, _ = run_baselines(reading, data_dir, keep=True)
        if baselines:
            to.print(tables.baselines_table(baselines, run.best, run.sign))
            to.print(tables.baselines_line(baselines, run.ranking, run.best, run.sign), soft_wrap=True)
    _export(reading, data_dir, to, baselines)


def _spared(what: str, paths: RunPaths, to: Console) -> AbstractContextManager[None]:
    """Say that ``what`` cannot be made where the block fails: the run is finished all the same."""
    again = f"`tune-rh report {paths.root.name}` makes it later"
    return spared(lambda why: to.print(f"warning: {what} cannot be made ({why}); {again}", soft_wrap=True))


def _export(reading: Reading, data_dir: Path, to: Console, baselines: Sequence[Baseline]) -> None:
    paths, history = reading.paths, reading.history
    shutil.rmtree(paths.best, ignore_errors=True)
    try:
        chosen = export(paths, history, paths.best, baselines=baselines, companions=companions(history.plan, data_dir))
    except ExportError as error:
        to.print(f"Nothing exported: {error}", soft_wrap=True)
        return
    to.print(f"Best: {chosen.candidate} ({chosen.label})", soft_wrap=True)
    to.print(
        f"Exported to {paths.best}; `tune-rh export {paths.root.name} --out DIR` copies it elsewhere.", soft_wrap=True
    )


def _failed(history: History, to: Console) -> bool:
    warnings = []
    members = [m for c in history.candidates.values() for m in c.members.values()]
    for member in members:
        if member.status == "failed":
            first, _, _ = member.reason.partition("\n")
            warnings.append(f"{member.id} failed after its retries: {first}")
    why = {(d.candidate, d.seed): d.reason.partition("\n")[0] for d in history.decisions}
    unread = [m.id for m in members if m.tested and not m.tested.metrics]
    if unread:
        warnings.append(
            f"reading test failed for {', '.join(map(str, unread))}: {why.get(unread[0], 'no metric is reported')}"
        )
    blind = [m.id for m in members if history.plan.diagnose and m.diagnosed and not m.diagnosed.verdicts]
    if blind:
        names, said = ", ".join(map(str, blind)), why.get(blind[0], "no verdict is given")
        warnings.append(f"the diagnosis of {names} failed: {said}; `tune-rh diagnose` shows more")
    for warning in warnings:
        to.print(f"warning: {warning}", soft_wrap=True)
    return bool(warnings)
