"""Go on with a run after Ctrl-C, a crash or a power cut: finished work stays, the rest goes on from its checkpoints."""

from __future__ import annotations

import argparse

from tune_rh.cli import options, terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the module."""
    parser.add_argument("run", help="name of a run, or its folder")
    options.add_runner(parser)
    options.add_places(parser)


def run(args: argparse.Namespace) -> int:
    """See the module."""
    from tune_rh.run import runs
    from tune_rh.run.execute import execute

    paths = runs.find(args.run, args.runs_dir.absolute())
    return execute(
        paths, options.data_dir(args, paths), runner=args.runner, address=args.address, to=terminal.console()
    )
