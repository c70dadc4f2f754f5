"""Run the search that a plan describes: a TOML file, or the name of a plan that ships (quickstart)."""

from __future__ import annotations

import argparse
import shutil

from tune_rh import cost, display, preflight
from tune_rh.commands import options
from tune_rh.errors import PreflightRefused
from tune_rh.plan_file import find_plan, load_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the module."""
    parser.add_argument("plan", help="a plan file, or the name of one that ships with tune-rh")
    parser.add_argument("--name", help="name of the run (default: the plan's)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a field of the plan (stages.0.until_step=500); recorded with the run",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would run and its cost in steps")
    options.add_runner(parser)
    options.add_places(parser)


def run(args: argparse.Namespace) -> int:
    """See the module."""
    overrides = [*args.overrides, *([f'name="{args.name}"'] if args.name else [])]
    plan = load_plan(find_plan(args.plan), overrides)
    preflight.check_plan(plan)
    console = display.console()
    if args.dry_run:
        display.print_plan(plan, cost.expected(plan), console)
        return 0
    from tune_rh import runs
    from tune_rh.execute import execute, prepare_data

    data_dir = options.data_dir(args)
    options.check_writable(args.runs_dir, "--runs-dir")
    preflight.check_machine(plan, args.runs_dir, local=args.runner == "local")
    runs.check_free(args.runs_dir.absolute() / plan.name)
    prepare_data(plan, data_dir, console)
    paths = runs.create(plan, args.runs_dir.absolute() / plan.name, data_dir)
    console.print(f"Run {plan.name} in {paths.root}", soft_wrap=True)
    try:
        return execute(paths, data_dir, runner=args.runner, address=args.address, to=console)
    except PreflightRefused:
        # What a cluster can give is known once it is joined; a run in which nothing began would only be in the way.
        shutil.rmtree(paths.root)
        raise
