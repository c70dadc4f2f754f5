"""Run what a plan describes: a TOML file, or the name of a plan that ships (quickstart)."""

from __future__ import annotations

import argparse

from tune_rh.cli import options
from tune_rh.plan.file import find_plan, load_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", help="a plan file, or the name of one that ships with tune-rh")
    parser.add_argument(
        "--audit", type=int, metavar="N", help="run N of those that were cut to the end: would one of them have won?"
    )
    options.add_run(parser)


def run(args: argparse.Namespace) -> int:
    audit = [f"audit={args.audit}"] if args.audit is not None else []
    return options.launch(load_plan(find_plan(args.plan), [*audit, *options.overrides(args)]), args)
