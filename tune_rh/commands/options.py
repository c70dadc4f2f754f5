"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from tune_rh.errors import PlanError


def add_places(parser: argparse.ArgumentParser) -> None:
    """``--runs-dir`` and ``--data-dir``."""
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="where runs lie (runs)")
    add_data_dir(parser)


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """``--data-dir``."""
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where data sets lie ($TUNE_RH_DATA_DIR, or data)")


def add_runner(parser: argparse.ArgumentParser) -> None:
    """``--runner`` and ``--address``."""
    parser.add_argument(
        "--runner", choices=("ray", "local"), default="ray", help="ray: on Ray Tune (default); local: in this process"
    )
    parser.add_argument(
        "--address", default="local", help="a Ray cluster to join (auto, or host:port); default: one of its own"
    )


def data_dir(args: argparse.Namespace) -> Path:
    """The folder of data sets that was asked for."""
    from tune_rh.runs import default_data_dir

    return args.data_dir.absolute() if args.data_dir else default_data_dir()


def check_writable(folder: Path, option: str) -> None:
    """Make ``folder``; raises PlanError if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanError(f"{option} {folder}: cannot be made ({error.strerror})") from error
