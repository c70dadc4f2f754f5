"""Options that several commands share."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.errors import DataMissing
from tune_rh.errors import PlanError
from tune_rh.plan.schema import Plan

if TYPE_CHECKING:
    from tune_rh.record.journal import RunPaths
    from tune_rh.run.execute import Place, Precautions


def path(text: str) -> Path:
    """An argument that is a path; a shell leaves the ``~`` of ``--runs-dir=~/runs`` to the program."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def add_places(parser: argparse.ArgumentParser) -> None:
    """``--runs-dir`` and ``--data-dir``."""
    add_runs_dir(parser)
    add_data_dir(parser)


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    """``--runs-dir``."""
    parser.add_argument("--runs-dir", type=path, default=Path("runs"), metavar="DIR", help="where runs lie (runs)")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="import this module though only a run or an export of somebody else names it",
    )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """``--data-dir``."""
    parser.add_argument("--data-dir", type=path, metavar="DIR", help="where data sets lie ($TUNE_RH_DATA_DIR, or data)")


def add_runner(parser: argparse.ArgumentParser) -> None:
    """``--runner``, ``--address`` and ``--slots-max``."""
    parser.add_argument(
        "--runner", choices=("ray", "local"), default="ray", help="ray: on Ray Tune (default); local: in this process"
    )
    parser.add_argument(
        "--address", default="local", help="a Ray cluster to join (auto, or host:port); default: one of its own"
    )
    parser.add_argument(
        "--no-metrics", action="store_true", help="show nothing on Ray's metrics endpoint, which asks for no token"
    )
    parser.add_argument(
        "--ship-data", action="store_true", help="bring the data set to nodes of the cluster that have not got it"
    )
    parser.add_argument(
        "--slots-max",
        type=int,
        metavar="N",
        help="jobs at a time on a cluster whose autoscaler brings nodes for them; default: as many as fit on it",
    )


def add_mirror(parser: argparse.ArgumentParser) -> None:
    """``--mirror``."""
    parser.add_argument(
        "--mirror",
        metavar="ADDRESS",
        help="keep a copy of the run below s3://bucket/prefix or file:///folder, to `resume ADDRESS/NAME` from",
    )


def place(args: argparse.Namespace, data_dir: Path, mirror: str | None = None) -> Place:
    """Where a run is to go on, as it was asked for; ``mirror`` where no other one was."""
    from tune_rh.run.execute import Place

    return Place(
        data_dir,
        args.runner,
        args.address,
        args.slots_max,
        metrics=not args.no_metrics,
        mirror=getattr(args, "mirror", None) or mirror,
        ship_data=args.ship_data,
    )


def add_set(parser: argparse.ArgumentParser, summary: str) -> None:
    """``--set``."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=summary)


def add_run(parser: argparse.ArgumentParser) -> None:
    """What every command that starts a run takes."""
    add_plan(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would run and its cost in steps")
    add_precautions(parser)
    add_no_trial(parser)
    add_runner(parser)
    add_mirror(parser)
    add_places(parser)


def add_plan(parser: argparse.ArgumentParser) -> None:
    """``--name`` and ``--set``."""
    parser.add_argument("--name", help="name of the run (default: the plan's)")
    add_set(parser, "override a field of the plan (stages.0.until_step=500); recorded with the run")


def add_precautions(parser: argparse.ArgumentParser) -> None:
    """``--accept`` and ``--strict``."""
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="ID",
        help="go on despite a finding of the checks before launch (P20), which the journal then records",
    )
    parser.add_argument("--strict", action="store_true", help="check any run as a long one on an accelerator")


def add_no_trial(parser: argparse.ArgumentParser) -> None:
    """``--no-trial``."""
    parser.add_argument(
        "--no-trial", action="store_true", help="leave out the trial round trip of the control: build, step, save, load"
    )


def precautions(args: argparse.Namespace) -> Precautions:
    """``--accept``, ``--strict`` and ``--no-trial`` as they were given."""
    from tune_rh.run.execute import Precautions

    return Precautions(frozenset(args.accept), args.strict, not getattr(args, "no_trial", False))


def overrides(args: argparse.Namespace) -> list[str]:
    """``--set`` and ``--name`` as overrides of a plan."""
    return [*args.overrides, *([] if args.name is None else [f"name={json.dumps(args.name)}"])]


def refuse_with_plan(given: Mapping[str, object], belong_to: str) -> None:
    """Raise PlanError if options are given that a plan would ignore."""
    used = [name for name, value in given.items() if value is not None]
    if used:
        raise PlanError(f"{', '.join(used)}: belong to {belong_to}; a plan's fields are overridden with --set")


def launch(plan: Plan, args: argparse.Namespace) -> int:
    """Check, freeze and run a plan; returns the exit code."""
    from tune_rh.cli import tables, terminal
    from tune_rh.plan import cost
    from tune_rh.run import preflight

    console = terminal.console(may_lose=not args.dry_run)
    if args.dry_run:
        preflight.check_plan(plan)
        with suppress(DataMissing):
            preflight.check_data(plan, data_dir(args))
        tables.print_plan(plan, cost.expected(plan), console)
        return 0
    from tune_rh.cli.conclude import conclude, exit_code
    from tune_rh.run import execute

    where = place(args, data_dir(args))
    concluding = partial(conclude, data_dir=where.data_dir, to=console)
    paths, outcome = execute.launch(
        plan, args.runs_dir, where, terminal.Terminal(console), concluding, precautions(args)
    )
    return exit_code(paths, where, outcome, console)


def data_dir(args: argparse.Namespace, paths: RunPaths | None = None) -> Path:
    """The folder of data sets that was asked for, else the one that the run at ``paths`` was made with.

    Raises:
        PlanError: what was asked for is no folder, and could not be made.
    """
    from tune_rh.run.runs import default_data_dir, recorded_data_dir

    if args.data_dir:
        folder: Path = args.data_dir.absolute()
        if not _existing(folder).is_dir():
            raise PlanError(f"--data-dir {args.data_dir}: {_existing(folder)} is no folder")
        return folder
    return default_data_dir() if paths is None else recorded_data_dir(paths)


def check_writable(folder: Path, option: str) -> None:
    """Make ``folder``; raises PlanError if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanError(f"{option} {folder}: cannot be made ({error.strerror})") from error


def check_device(name: str) -> None:
    """Raise PlanError unless torch can compute on the ``--device`` of that name."""
    if name == "cpu":
        return
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:  # without CUDA, torch asserts
        raise PlanError(f"--device {name}: torch cannot use it here ({str(error).splitlines()[0]})") from error


def nearest_folder(folder: Path, option: str) -> Path:
    """``folder``, or the folder in which it would be made; raises PlanError if that cannot be written."""
    place = _existing(folder.absolute())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise PlanError(f"{option} {folder}: cannot be made ({place} is no folder that can be written)")
    return place


def _existing(place: Path) -> Path:
    """The nearest of an absolute path and the folders above it that is there."""
    while not os.path.lexists(place):
        place = place.parent
    return place
