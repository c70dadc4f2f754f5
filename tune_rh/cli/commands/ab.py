"""Compare config B with config A, paired by seed: better, worse, equivalent or undecided, and how sure.

A and B are presets, TOML files, RUN/c0007, or exported folders; or give one plan with `[compare]` (e4-vs-e5).
"""

from __future__ import annotations

import argparse
from typing import Any

from tune_rh.cli import options
from tune_rh.errors import PlanError
from tune_rh.plan.file import find_plan, load_plan, override, resolve_plan
from tune_rh.plan.kinds import MIN_PAIRS, Comparison
from tune_rh.plan.schema import Plan
from tune_rh.run.given import given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the module."""
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
    """See the module."""
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
            raise PlanError(f"{args.a}: is no comparison (no [compare]); give A and B, or `tune-rh search` runs it")
        return plan
    if args.steps is None:
        raise PlanError("--steps: missing; how far every run goes")
    seeds = _seeds(args.seeds)
    a, b = (given(text, args.family, args.runs_dir.absolute()) for text in (args.a, args.b))
    if a.family != b.family:
        raise PlanError(f"A is of family {a.family!r}, B of {b.family!r}: only one family can be compared with itself")
    names = (a.label, b.label) if a.label != b.label else (f"{a.label} (A)", f"{b.label} (B)")
    fields: dict[str, Any] = {
        "name": options.safe_name(f"{a.label}-vs-{b.label}"),
        "family": a.family,
        "control": names[0],
        "presets": [names[1]],
        "configs": {name: side.variant.model_dump(exclude_none=True) for name, side in zip(names, (a, b), strict=True)},
        "num_candidates": 1,
        "seeds": seeds,
        "eval_every": args.eval_every or options.eval_every(args.steps),
        "stages": [{"until_step": args.steps, "num_seeds": len(seeds)}],
        "compare": compare,
    }
    for text in options.overrides(args):
        override(fields, text)
    return resolve_plan(fields, where="ab")


def _seeds(words: list[int] | None) -> list[int]:
    """One number is how many; several are the seeds themselves."""
    seeds = list(range((words or [8])[0])) if len(words or []) < 2 else list(words or [])
    if len(seeds) < MIN_PAIRS:
        shown = " ".join(map(str, words or []))
        raise PlanError(
            f"--seeds {shown}: {len(seeds)} pair{'s' * (len(seeds) != 1)}; a claim needs at least {MIN_PAIRS}. "
            "With fewer, a lucky seed and a better config look the same"
        )
    return seeds


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
