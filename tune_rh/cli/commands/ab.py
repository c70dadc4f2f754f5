"""Compare config B with config A, paired by seed: better, worse, equivalent or undecided, and how sure.

A and B are presets, TOML files, RUN/c0007, or exported folders; or give one plan with `[compare]` (e4-vs-e5).
"""

from __future__ import annotations

import argparse

from tune_rh.cli import options
from tune_rh.errors import PlanError
from tune_rh.plan.file import find_plan, load_plan
from tune_rh.plan.kinds import Comparison
from tune_rh.plan.schema import Plan
from tune_rh.run.builders import comparison_plan
from tune_rh.run.chosen import chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A|PLAN", help="the config that B is held against; or a plan of a comparison")
    parser.add_argument("b", metavar="B", nargs="?", help="the config under question")
    parser.add_argument("--family", help="the family of presets and of files that do not say theirs")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="N",
        help="how many pairs (8), or which seeds; fixed before the first",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="optimiser steps of every run")
    parser.add_argument("--test", choices=("sign_flip", "t", "e_process"), help="see docs/statistics.md (sign_flip)")
    parser.add_argument("--alpha", type=float, help="chance of a false claim, both directions together (0.05)")
    parser.add_argument("--region", type=float, help="differences up to this are equivalent in practice (0.01)")
    parser.add_argument("--bisect", action="store_true", help="if B is worse, find the keys that carry it")
    parser.add_argument("--max-probes", type=int, metavar="N", help="configs between A and B that may be run (24)")
    parser.add_argument("--eval-every", type=int, metavar="N", help="steps between evaluations (about 10 in all)")
    options.add_run(parser)


def run(args: argparse.Namespace) -> int:
    return options.launch(_plan(args), args)


def _plan(args: argparse.Namespace) -> Plan:
    compare = {"test": args.test, "alpha": args.alpha, "region": args.region, "max_probes": args.max_probes}
    compare = {name: value for name, value in compare.items() if value is not None}
    if args.bisect:
        compare["bisect"] = True
    if args.b is None:
        more = {"--eval-every": args.eval_every, "--family": args.family}
        options.refuse_with_plan({"--seeds": args.seeds, "--steps": args.steps, **more}, "A and B")
        texts = [f"compare.{name}={_toml(value)}" for name, value in compare.items()]
        plan = load_plan(find_plan(args.a), [*texts, *options.overrides(args)])
        if not isinstance(plan, Comparison):
            raise PlanError(
                f"{args.a}: not a comparison plan: it has no [compare] table; give A and B, or `tune-rh search` runs it"
            )
        return plan
    if args.steps is None:
        raise PlanError("--steps: missing; how far every run goes")
    a, b = (chosen(text, args.family, args.runs_dir.absolute()) for text in (args.a, args.b))
    words = args.seeds or [8]
    return comparison_plan(
        a,
        b,
        steps=args.steps,
        seeds=words if len(words) > 1 else words[0],
        eval_every=args.eval_every,
        compare=compare,
        overrides=options.overrides(args),
    )


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
