"""Diagnose what survived: members of a run, an exported folder, or one checkpoint.

RUN alone takes every member that reached the last stage; findings go to the members' folders, where reports read them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tune_rh.commands import options
from tune_rh.errors import DONE, JournalCorrupt, PlanError

if TYPE_CHECKING:
    from analysis.api import Finding
    from analysis.subject import Subject


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the module."""
    parser.add_argument("what", metavar="RUN|FOLDER", help="a run, an exported folder, or a checkpoint's folder")
    parser.add_argument("--member", metavar="ID", action="append", help="only this member (c0007-s42); may be repeated")
    parser.add_argument("--only", metavar="NAME", action="append", help="only this diagnostic; may be repeated")
    parser.add_argument("--config", metavar="CONFIG", help="of a checkpoint outside any run: preset, file or RUN/c0007")
    parser.add_argument("--family", help="of --config, where it does not say its own")
    parser.add_argument("--seed", type=int, default=0, help="that the checkpoint was trained with (0)")
    parser.add_argument("--device", default="cpu", help="as torch spells it (cpu)")
    options.add_places(parser)


def run(args: argparse.Namespace) -> int:
    """See the module."""
    from analysis.findings import to_json
    from analysis.registry import UnknownDiagnostic, diagnose
    from tune_rh import display
    from tune_rh.diagnosis import FINDINGS, keep

    to = display.console()
    for subject, folder in _subjects(args):
        took: dict[str, float] = {}

        def done(finding: Finding, seconds: float, took: dict[str, float] = took) -> None:
            took[finding.name] = seconds

        with to.status(f"{subject.member}: diagnosing"):
            try:
                findings = diagnose(subject, args.only, done)
            except UnknownDiagnostic as error:
                raise PlanError(f"--only: {error}") from error
        to.print(display.findings_table(subject.member, findings))
        to.print(f"{subject.member}: {sum(took.values()):.0f} s", soft_wrap=True)
        if folder is not None and not args.only:
            keep(folder, subject, to_json(findings, took))
            to.print(f"Written: {folder / FINDINGS}", soft_wrap=True)
    return DONE


def _subjects(args: argparse.Namespace) -> Iterator[tuple[Subject, Path | None]]:
    """What is to be diagnosed, and the folder that its findings belong to."""
    from analysis.subject import open_checkpoint, open_export
    from trainables.exported import INDEX

    path, data_dir = Path(args.what), options.data_dir(args)
    if (path / INDEX).is_file():
        yield open_export(path, data_dir, args.device), None
        return
    if args.config is None:
        yield from _members(args, data_dir)
        return
    from tune_rh.configs import given, resolved

    config = given(args.config, args.family, args.runs_dir.absolute())
    fields = resolved(config).model_dump(mode="json")
    yield (
        open_checkpoint(
            path, family=config.family, config=fields, seed=args.seed, data_dir=data_dir, device=args.device
        ),
        None,
    )


def _members(args: argparse.Namespace, data_dir: Path) -> Iterator[tuple[Subject, Path]]:
    from analysis.records import RunUnreadable
    from analysis.subject import open_member
    from tune_rh import runs

    paths = runs.find(args.what, args.runs_dir.absolute())
    _, history = runs.replay(paths)
    members = {str(m.id): m for c in history.candidates.values() for m in c.members.values()}
    chosen = args.member or [name for name, m in members.items() if m.tested is not None]
    if not chosen:
        raise PlanError(f"{args.what}: nobody has reached the last stage yet; --member ID takes another one")
    for name in chosen:
        if name not in members:
            raise PlanError(f"--member {name}: is not in this run; it has {', '.join(members)}")
        try:
            yield open_member(paths.root, name, data_dir, args.device), paths.member(name)
        except RunUnreadable as error:
            raise JournalCorrupt(str(error)) from error
