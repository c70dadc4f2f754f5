"""Make the data set of a family; what is there and sound is kept, what was cut off goes on where it stopped."""

from __future__ import annotations

import argparse

from trainables.registry import get_family
from tune_rh import display
from tune_rh.commands import options
from tune_rh.errors import PlanError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the module."""
    parser.add_argument("family", help="name of a family (tune-rh families)")
    parser.add_argument("--size", metavar="NAME", help="which data set; without it, those there are are listed")
    options.add_data_dir(parser)


def run(args: argparse.Namespace) -> int:
    """See the module."""
    from tune_rh.execute import make_data
    from tune_rh.runs import data_source

    family = get_family(args.family)
    names = data_source(family).names
    if args.size not in names:
        raise PlanError(f"--size {args.size}: {family.name} has the data sets {', '.join(names)}")
    to = display.console()
    folder = options.data_dir(args)
    path = make_data(family, args.size, folder, to)
    to.print(f"{path}  sha256 {data_source(family).digest(args.size, folder)}", soft_wrap=True)
    return 0
