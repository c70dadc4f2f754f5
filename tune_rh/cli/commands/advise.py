"""What a run's own curves would have wished of its plan: where gates stand, how many go on, where seeds go."""

from __future__ import annotations

import argparse

from tune_rh.cli import options
from tune_rh.run import runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name of a run, or its folder")
    options.add_runs_dir(parser)


def run(args: argparse.Namespace) -> int:
    from tune_rh.cli import terminal
    from tune_rh.results.advice import advise
    from tune_rh.results.reading import read

    console = terminal.console()
    for sentence in advise(read(runs.find(args.run, args.runs_dir.absolute()))):
        console.print(sentence, soft_wrap=True, markup=False, highlight=False)
    return 0
