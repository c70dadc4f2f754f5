"""Race seeds of one config: all run to a gate, the best go on from their own checkpoints.

Give a family and a preset, or a plan with `unit = "member"` (e55-race).
"""

from __future__ import annotations

import argparse

from tune_rh.cli import options
from tune_rh.errors import PlanError
from tune_rh.plan.file import find_plan, load_plan
from tune_rh.plan.kinds import Race
from tune_rh.plan.schema import Plan
from tune_rh.run.builders import race_plan
from tune_rh.run.chosen import chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="FAMILY|PLAN", help="a family, with --preset; or a plan of a race")
    parser.add_argument("--preset", metavar="CONFIG", help="a preset, a TOML file, RUN/c0007 or an exported folder")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="the seeds that start")
    parser.add_argument("--steps", type=int, metavar="N", help="the gate, in optimiser steps")
    parser.add_argument("--keep", type=int, metavar="K", help="how many members pass it")
    parser.add_argument("--then", type=int, metavar="N", help="where those end, in steps since their start")
    parser.add_argument("--patience", type=int, metavar="N", help="stop a member without a new best for so many steps")
    parser.add_argument("--success", type=float, metavar="VALUE", help="as good as this counts as a success")
    parser.add_argument("--eval-every", type=int, metavar="N", help="steps between evaluations (about 10 to the gate)")
    options.add_run(parser)


def run(args: argparse.Namespace) -> int:
    return options.launch(_plan(args), args)


def _plan(args: argparse.Namespace) -> Plan:
    needed = {"--seeds": args.seeds, "--steps": args.steps, "--keep": args.keep, "--then": args.then}
    if args.preset is None:
        more = {"--patience": args.patience, "--success": args.success, "--eval-every": args.eval_every}
        options.refuse_with_plan({**needed, **more}, "--preset")
        plan = load_plan(find_plan(args.what), options.overrides(args))
        if not isinstance(plan, Race):
            raise PlanError(f"{args.what}: not a race (unit = 'candidate'); `tune-rh search` runs it")
        return plan
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise PlanError(f"{', '.join(missing)}: missing; a race needs seeds, a gate, how many pass it, and an end")
    return race_plan(
        chosen(args.preset, args.what, args.runs_dir.absolute()),
        seeds=args.seeds,
        steps=args.steps,
        keep=args.keep,
        then=args.then,
        patience=args.patience,
        success=args.success,
        eval_every=args.eval_every,
        overrides=options.overrides(args),
    )
