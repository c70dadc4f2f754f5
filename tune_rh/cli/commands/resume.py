"""Go on with a run after Ctrl-C, a crash or a power cut: finished work stays, the rest goes on from its checkpoints."""

from __future__ import annotations

import argparse
from functools import partial

from tune_rh.cli import options, terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name of a run, its folder, or ADDRESS/NAME of a mirror")
    options.add_set(parser, "extend the plan (num_candidates=30, stages.3={until_step=9000, num_seeds=3}); recorded")
    options.add_precautions(parser)
    options.add_runner(parser)
    options.add_mirror(parser)
    options.add_places(parser)


def run(args: argparse.Namespace) -> int:
    from tune_rh.cli.conclude import conclude, exit_code
    from tune_rh.run.execute import execute
    from tune_rh.run.fetch import find_or_fetch

    console = terminal.console(may_lose=True)
    paths, mirror = find_or_fetch(args.run, args.runs_dir, terminal.Terminal(console).say)
    place = options.place(args, options.data_dir(args, paths), mirror)
    concluding = partial(conclude, data_dir=place.data_dir, to=console)
    outcome = execute(paths, place, terminal.Terminal(console), concluding, options.precautions(args), args.overrides)
    return exit_code(paths, place, outcome, console)
