"""Write what a run found as one page (report/index.html), as Markdown and as CSV; of two runs one page of both."""

from __future__ import annotations

import argparse

from tune_rh.cli import options
from tune_rh.errors import RunError, is_read_only
from tune_rh.run import runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name of a run, or its folder")
    parser.add_argument("other", nargs="?", help="a second run: one page of both, in the folder of the first")
    parser.add_argument(
        "--out", type=options.path, metavar="FILE", help="write the page there, and nothing in the run's folder"
    )
    options.add_places(parser)


def run(args: argparse.Namespace) -> int:
    from tune_rh.cli import terminal
    from tune_rh.results.reading import read
    from tune_rh.results.reporting import write, write_versus

    places = args.runs_dir.absolute()
    paths = runs.find(args.run, places)
    other = None if args.other is None else read(runs.find(args.other, places))
    try:
        if other is None:
            written = write(read(paths), options.data_dir(args, paths), args.out)
        else:
            written = write_versus(read(paths), other, args.out)
    except OSError as error:
        if args.out is not None or not is_read_only(error):
            raise
        hint = "--out FILE writes the page elsewhere"
        raise RunError(f"{paths.report}: cannot be written ({error.strerror}); {hint}") from error
    terminal.console().print(f"Report: {written}", soft_wrap=True)
    return 0
