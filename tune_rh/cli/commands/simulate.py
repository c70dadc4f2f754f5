"""Try a plan on recorded learning curves before any machine time is spent: regret and steps against virtual time.

The plan's stages, seeds, eta, rules, scoring, sampler, follow-ups, budget and number of candidates count; its family,
space, presets and references do not: candidates are the configs of the curves. With --record, the curves of a run are
written instead.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tune_rh.cli import options
from tune_rh.errors import PlanError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tune_rh.plan.kinds import Search
    from tune_rh.simulation.clock import Trace
    from tune_rh.simulation.curve_table import CurveTable

_FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", nargs="?", help="a plan file, or the name of one that ships with tune-rh")
    parser.add_argument(
        "--curves", type=options.path, required=True, metavar="FILE", help="a table of learning curves (Parquet)"
    )
    parser.add_argument("--workers", type=int, default=8, metavar="W", help="jobs at a time (8)")
    parser.add_argument("--repeats", type=int, default=20, metavar="R", help="searches, each with another seed (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the first search; the others count on from it (0)")
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="stop each search at so many steps (default: its end)"
    )
    parser.add_argument(
        "--failures", type=float, default=0.0, metavar="P", help="chance that a job fails at a report (0)"
    )
    parser.add_argument(
        "--stragglers", type=float, default=0.0, metavar="SIGMA", help="log-normal factor on each job's seconds (0)"
    )
    parser.add_argument(
        "--overhead", type=float, default=0.0, metavar="S", help="seconds that a job takes to start (0)"
    )
    parser.add_argument("--csv", type=options.path, metavar="OUT", help="write every point of every search")
    parser.add_argument(
        "--record", metavar="RUN", help="write the curves of this run to the file of --curves, and stop"
    )
    options.add_set(parser, "override a field of the plan")
    options.add_runs_dir(parser)


def run(args: argparse.Namespace) -> int:
    from rich.progress import Progress

    from tune_rh.cli import terminal
    from tune_rh.plan.file import find_plan, load_plan
    from tune_rh.plan.kinds import Search
    from tune_rh.simulation.clock import Conditions
    from tune_rh.simulation.curve_table import load
    from tune_rh.simulation.table_source import repeat

    console = terminal.console()
    if args.record:
        if args.plan:
            raise PlanError("--record writes the curves of a run and simulates nothing: leave the plan out")
        return _record(args, console)
    if not args.plan:
        raise PlanError("a plan is missing: tune-rh simulate PLAN --curves FILE")
    plan = load_plan(find_plan(args.plan), args.overrides)
    if not isinstance(plan, Search):
        raise PlanError(f"{args.plan}: a simulation is of a search, and this is a {plan.kind} of given configs")
    conditions = Conditions(
        workers=args.workers,
        failures=args.failures,
        max_failures=plan.resources.max_failures,
        stragglers=args.stragglers,
        overhead_s=args.overhead,
        max_steps=args.max_steps,
    )
    table = _simulable(plan, load(args.curves), console)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        searches = repeat(plan, table, conditions, args.repeats, args.seed)
        traces = list(progress.track(searches, total=args.repeats, description="searches"))
    console.print(_regret_table(table, traces, args.max_steps))
    console.print(_facts(traces), soft_wrap=True)
    if args.csv:
        _write_csv(traces, args.csv)
        console.print(f"Every point is in {args.csv}", soft_wrap=True)
    return 0


def _regret_table(table: CurveTable, traces: Sequence[Trace], max_steps: int | None) -> Table:
    """Regret against steps and virtual time, over all searches."""
    from rich.table import Table

    from analysis.reports.tables import duration
    from tune_rh.simulation.regret import prior_regret, rows

    budget = max_steps or max(trace.steps[-1] for trace in traces)
    of_budget = Table(
        *("budget", "steps", "virtual time", "regret", "95% interval"),
        title=f"{len(traces)} searches on {table.name} ({table.objective}, {len(table.configs)} configs)",
    )
    for row in rows(traces, budget, prior_regret(table), _FRACTIONS):
        mean, low, high = row.regret
        interval = "-" if math.isnan(low) else f"{low:.4g} to {high:.4g}"
        of_budget.add_row(f"{row.fraction:.0%}", str(row.steps), duration(row.seconds), f"{mean:.4g}", interval)
    return of_budget


def _facts(traces: Sequence[Trace]) -> str:
    """What the table's columns mean, and what the searches had in common."""
    import numpy as np

    idle = float(np.mean([trace.idle for trace in traces]))
    us = 1e6 * np.concatenate([trace.decision_s for trace in traces])
    return (
        "Regret: the true value of the config that would be handed over, above the best of the table. "
        f"Slots idle: {idle:.1%}. A decision: {us.mean():.0f} us, 99 of 100 within {np.quantile(us, 0.99):.0f} us."
    )


def _write_csv(traces: Sequence[Trace], path: Path) -> None:
    """One line a point: repeat, virtual seconds, steps, regret (empty before there is an incumbent), busy workers."""
    options.check_writable(path.absolute().parent, "--csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("repeat", "seconds", "steps", "regret", "busy"))
        for repeat, t in enumerate(traces):
            for seconds, steps, regret, busy in zip(t.seconds, t.steps, t.regret, t.busy, strict=True):
                value = "" if math.isnan(regret) else f"{regret:.6g}"
                writer.writerow((repeat, f"{seconds:.6g}", int(steps), value, int(busy)))


def _record(args: argparse.Namespace, console: Console) -> int:
    from tune_rh.results.reading import read
    from tune_rh.run import runs
    from tune_rh.simulation.curve_table import save
    from tune_rh.simulation.recorded import record

    paths = runs.find(args.record, args.runs_dir.absolute())
    table = record(paths.root.name, read(paths).history)
    options.check_writable(args.curves.absolute().parent, "--curves")
    save(table, args.curves)
    replicates = sum(len(curves) for curves in table.curves)
    console.print(
        f"{args.curves}: {replicates} curves of {len(table.configs)} configs, to step {table.max_step}", soft_wrap=True
    )
    return 0


def _simulable(plan: Search, table: CurveTable, console: Console) -> CurveTable:
    """The configs whose curves go to the plan's end with all of its seeds."""
    from tune_rh.simulation.table_source import check_steps

    check_steps(plan, table)
    kept, left_out = table.complete(plan.stages[-1].until_step, len(plan.seeds))
    if left_out:
        console.print(
            f"{left_out} of {len(table.configs)} configs are left out: their curves end before step "
            f"{plan.stages[-1].until_step}, or are fewer than the plan's {len(plan.seeds)} seeds",
            soft_wrap=True,
        )
    return kept
