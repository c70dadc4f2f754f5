"""Diagnose what survived: a run and its members, an exported folder, or one checkpoint.

RUN alone takes every member that reached the last stage, and then the run as a whole, where its family has questions
about that; findings go to the members' folders and to report/, where reports read them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tune_rh.cli import options
from tune_rh.errors import DONE, PlanError

if TYPE_CHECKING:
    from analysis.diagnose.api import Finding
    from analysis.diagnose.subject import Subject
    from analysis.view import Run
    from tune_rh.record.journal import RunPaths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="RUN|FOLDER", help="a run, an exported folder, or a checkpoint's folder")
    parser.add_argument("--member", metavar="ID", action="append", help="only this member (c0007-s42); may be repeated")
    parser.add_argument("--only", metavar="NAME", action="append", help="only this diagnostic; may be repeated")
    parser.add_argument("--config", metavar="CONFIG", help="of a checkpoint outside any run: preset, file or RUN/c0007")
    parser.add_argument("--family", help="of --config, where it does not say its own")
    parser.add_argument("--seed", type=int, default=0, help="that the checkpoint was trained with (0)")
    parser.add_argument("--device", default="cpu", help="as torch spells it (cpu)")
    options.add_places(parser)


def run(args: argparse.Namespace) -> int:
    from analysis.diagnose.registry import UnknownDiagnostic
    from trainables.worker.exported import INDEX

    options.check_device(args.device)
    is_outside = args.config is not None or (Path(args.what) / INDEX).is_file()
    try:
        if is_outside:
            _diagnose_models([_outside_runs(args)], args.only)
        else:
            _diagnose_members_and_run(args)
    except UnknownDiagnostic as error:
        raise PlanError(f"--only: {error}") from error
    return DONE


def _diagnose_members_and_run(args: argparse.Namespace) -> None:
    from analysis.diagnose.registry import offered
    from tune_rh.results.reading import read
    from tune_rh.run import runs

    paths = runs.find(args.what, args.runs_dir.absolute())
    read_run = read(paths).run
    family = read_run.plan["family"]
    of_models, of_run = _split(family, args.only, args.member is None)
    members: list[str] = []
    if of_models is None or of_models:
        members = _chosen(args, read_run)
        if not members and (of_models or not offered(family, "records")):
            raise PlanError(f"{args.what}: no member has reached the last stage yet; --member ID takes another one")
    if args.only is None:
        _check_offered(family)
    _diagnose_models(_opened(args, paths, read_run, members), of_models)
    if of_run is None or of_run:
        _diagnose_run(paths, read_run, of_run)


def _split(family: str, only: list[str] | None, whole_run: bool) -> tuple[list[str] | None, list[str] | None]:
    """Which names are asked of models and which of the run (None: all), all of them known to the family."""
    from analysis.diagnose.registry import get_diagnostic, offered

    for name in only or ():
        get_diagnostic(family, name)
    if only is None or not whole_run:
        return only, None if whole_run else []
    of_run = [name for name in only if name in offered(family, "records")]
    return [name for name in only if name not in of_run], of_run


def _check_offered(family: str) -> None:
    """Raise PlanError if there is nothing to ask of the family."""
    from analysis.diagnose.registry import diagnostics_of

    if not diagnostics_of(family):
        raise PlanError(f"family {family!r} has no diagnostics: its Family names none (trainables.api)")


def _diagnose_models(subjects: Iterable[tuple[Subject, Path | None]], names: Sequence[str] | None) -> None:
    from analysis.diagnose.findings import to_json
    from analysis.diagnose.in_worker import FINDINGS
    from analysis.diagnose.registry import diagnose
    from trainables.files import write_atomic
    from tune_rh.cli import tables, terminal

    to = terminal.console()
    for subject, folder in subjects:
        took: dict[str, float] = {}

        def done(finding: Finding, seconds: float, took: dict[str, float] = took) -> None:
            took[finding.name] = seconds

        with to.status(f"{subject.member}: diagnosing"):
            findings = diagnose(subject, names, done)
        to.print(tables.findings_table(subject.member, findings))
        to.print(f"{subject.member}: {sum(took.values()):.0f} s", soft_wrap=True)
        if folder is not None and not names:
            with terminal.written(folder / FINDINGS, to):
                write_atomic(folder / FINDINGS, to_json(findings, took))


def _diagnose_run(paths: RunPaths, read_run: Run, names: Sequence[str] | None) -> None:
    from tune_rh.cli import tables, terminal
    from tune_rh.results.reporting import about_run

    to, about = terminal.console(), about_run(read_run, names)
    if about.findings:
        to.print(tables.findings_table("the whole run", about.findings))
    if about.findings and not names:
        with terminal.written(paths.report / "findings.json", to):
            about.keep(paths)


def _outside_runs(args: argparse.Namespace) -> tuple[Subject, None]:
    """An export or a checkpoint: its findings belong to no folder."""
    from analysis.diagnose.subject import open_checkpoint, open_export
    from trainables.worker.exported import INDEX
    from tune_rh.run.chosen import chosen, resolved

    path, data_dir = Path(args.what), options.data_dir(args)
    if (path / INDEX).is_file():
        subject = open_export(path, data_dir, args.device)
        _check_offered(subject.family)
        return subject, None
    config = chosen(args.config, args.family, args.runs_dir.absolute())
    _check_offered(config.family)
    fields = resolved(config).model_dump(mode="json")
    subject = open_checkpoint(
        path, family=config.family, config=fields, seed=args.seed, data_dir=data_dir, device=args.device
    )
    return subject, None


def _chosen(args: argparse.Namespace, read_run: Run) -> list[str]:
    """The members that were named, or else all that reached the last stage."""
    for name in args.member or ():
        if name not in read_run.members:
            raise PlanError(f"--member {name}: is not in this run; it has {', '.join(read_run.members)}")
    return args.member or [name for name, member in read_run.members.items() if member.tested is not None]


def _opened(
    args: argparse.Namespace, paths: RunPaths, read_run: Run, names: Sequence[str]
) -> Iterator[tuple[Subject, Path]]:
    from analysis.diagnose.subject import open_member

    data_dir = options.data_dir(args, paths)
    for name in names:
        yield open_member(read_run, name, data_dir, args.device), paths.member(name)
