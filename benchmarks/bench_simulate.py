"""The search policy beside other tuners on recorded curves: regret for the same steps, workers and evaluations.

    python -m benchmarks.bench_simulate             the half of the tables that results are reported on, into RESULTS.md
    python -m benchmarks.bench_simulate --choose    settings of our own on the other half, ranked; writes nothing
    python -m benchmarks.bench_simulate --scale     10,000 candidates on 1,000 workers (`benchmarks.bench_scale`)

Regret is the true value of the config that a tool would hand over, above the best of the table, divided by that of the
table's median config: 0 is the best, 1 a config drawn blindly. Budgets are in steps and count for every tool alike.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import optuna

from benchmarks import peers, tables
from benchmarks.kept import kept
from benchmarks.results import hardware, record, table
from benchmarks.settings import BEFORE, BY_VALUE, CHOSEN, NINTH, TWENTIETH, Setting, grid, plan_for, stage_ends
from tune_rh.simulation.clock import Clock, Conditions
from tune_rh.simulation.curve_table import Array, CurveTable
from tune_rh.simulation.regret import prior_regret
from tune_rh.simulation.table_source import simulate

TITLE = "Regret for the same budget: {} full runs"
WORKERS = 8
FULL_RUNS = 25
"""The budget if none is given: what so many trials to the end would cost."""
FRACTIONS = np.linspace(0.02, 1.0, 50)
RAY = "Ray Tune ASHA"
FROM = ", no trial shorter than "
Regrets = dict[str, dict[str, Array]]
"""Table -> tool -> (repeats, fractions)."""


@dataclass(frozen=True)
class Task:
    """One simulated search: which table, which tool, which repeat."""

    table: str
    tool: str
    repeat: int
    setting: Setting
    full_runs: int


@cache
def _tables() -> dict[str, CurveTable]:
    return {curves.name: curves for curves in tables.all_tables()}


def search(task: Task) -> Array:
    """(fractions,) regret of one simulated search."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    curves = _tables()[task.table]
    budget = task.full_runs * curves.max_step
    conditions = Conditions(workers=WORKERS, max_steps=budget)
    tool = task.tool.partition(FROM)[0]
    if tool in peers.SETTINGS:
        grace = stage_ends(curves, task.setting.ends)[0]
        peer = peers.make(tool, curves, grace, curves.max_step, task.repeat)
        trace = Clock(curves, 1, [curves.max_step], conditions, task.repeat).run(peer, peer)
    else:
        plan = plan_for(curves, task.setting, task.full_runs)
        trace = simulate(plan, curves, conditions, task.repeat)
    prior = prior_regret(curves)
    return np.asarray(trace.at(FRACTIONS * budget, prior) / prior)


def run(tasks: Sequence[Task], jobs: int, keep: Path | None = None) -> Regrets:
    """All searches, by table and tool (or setting, where there is no tool of that name).

    In ``keep`` the searches of a tool on a table are written down once they are done, and read where they are there.
    """
    groups: dict[tuple[str, str], list[Task]] = defaultdict(list)
    for task in tasks:
        groups[task.table, task.tool].append(task)
    rows: Regrets = defaultdict(dict)
    with get_context("fork").Pool(jobs) if jobs > 1 else nullcontext() as pool:
        for (name, tool), group in groups.items():
            each = partial(pool.map if pool else map, search, group)
            rows[name][tool] = kept(keep, group, lambda each=each: np.array(list(each())))
    return dict(rows)


def by_source(names: Iterable[str]) -> dict[str, list[str]]:
    """Tables by where they are from."""
    return {source: list(group) for source, group in itertools.groupby(sorted(names), lambda n: n.split("-")[0])}


def mean(regrets: Regrets, tool: str, rng: np.random.Generator | None = None) -> Array:
    """(fractions,) mean regret of a tool: over repeats, then tables, then sources, each with the same weight.

    With ``rng``, tables and repeats are drawn again with replacement: one sample of a bootstrap.
    """
    sources = []
    for names in by_source(regrets).values():
        drawn = names if rng is None else rng.choice(names, len(names))
        rows = [regrets[name][tool] for name in drawn]
        if rng is not None:
            rows = [r[rng.integers(len(r), size=len(r))] for r in rows]
        sources.append(np.mean([r.mean(axis=0) for r in rows], axis=0))
    return np.asarray(np.mean(sources, axis=0))


def ratio(regrets: Regrets, ours: str, peer: str, at: slice, samples: int = 1000) -> str:
    """Our mean regret over the peer's, with a 95% bootstrap interval over tables and repeats.

    The two are sampled apart, from the same draw of tables.
    """
    rows = {
        name: {tool: tools[tool][:, at].mean(axis=1, keepdims=True) for tool in (ours, peer)}
        for name, tools in regrets.items()
    }
    theirs = mean(rows, peer)[0]
    value = mean(rows, ours)[0] / theirs if theirs else math.inf
    draws = []
    for seed in range(samples):
        a = mean(rows, ours, np.random.default_rng(seed))[0]
        b = mean(rows, peer, np.random.default_rng(seed))[0]
        draws.append(a / b if b else math.inf)
    low, high = np.quantile(draws, (0.025, 0.975))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def share_to_reach(regrets: Regrets, tool: str, goal: float) -> str:
    """The share of the budget at which the tool's mean regret first is at most ``goal``."""
    reached = np.flatnonzero(mean(regrets, tool) <= goal)
    return f"{FRACTIONS[reached[0]]:.0%}" if len(reached) else "never"


def body(regrets: Regrets, tools: Sequence[str], settings: Mapping[str, Setting], full_runs: int) -> str:
    """The section of RESULTS.md."""
    sources = by_source(regrets)
    parts = {source: {name: regrets[name] for name in names} for source, names in sources.items()}
    header = ("end / over the budget", *(f"{s} ({len(n)})" for s, n in sources.items()), "all")
    rows = [(tool, *(_both(part, tool) for part in (*parts.values(), regrets))) for tool in tools]
    reached = [
        (tool, *(share_to_reach(part, tool, float(mean(part, RAY)[-1])) for part in (*parts.values(), regrets)))
        for tool in tools
    ]
    others = [tool for tool in tools if tool not in settings]
    first = next(iter(settings))
    ratios = [
        (f"{peer}, {when}", *(ratio(part, first, peer, at) for part in (*parts.values(), regrets)))
        for peer in (*others, *[name for name in settings if name != first])
        for when, at in (("at the end", slice(-1, None)), ("over the budget", slice(None)))
    ]
    repeats = {tool: sorted({len(regrets[name][tool]) for name in regrets}) for tool in tools}
    settings_text = "\n".join(
        [f"- {name}: {setting}; {_listed(repeats[name])} repeats a table" for name, setting in settings.items()]
        + [f"- {name}: {peers.SETTINGS[name]}; {_listed(repeats[name])} repeats" for name in others]
    )
    missing = [name for name in peers.SETTINGS if name not in tools]
    absent = f" Left out: {', '.join(missing)}." if missing else ""
    return (
        f"{table(header, rows)}\n\n{table((f'{first} / theirs', *header[1:]), ratios)}\n\n"
        f"{table(('share of the budget to the end of Ray', *header[1:]), reached)}\n\n"
        f"Mean regret with {full_runs} full runs' worth of steps on {WORKERS} workers; 0 is the best config of the "
        "table, 1 its median. `all` weighs the sources alike; intervals are 95%, bootstrap over tables, repeats. The "
        "settings were chosen on the other half of the tables. Everyone evaluates at each step of the table. Every "
        "peer's trials run for a twentieth of the full length at least, as ours do: on the other half, that suited "
        f"Ray's and Syne Tune's ASHA and Optuna's TPE as well as a ninth or better.{absent}\n\n{settings_text}"
    )


def _both(regrets: Regrets, tool: str) -> str:
    means = mean(regrets, tool)
    return f"{means[-1]:.3f} / {means.mean():.3f}"


def _listed(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))


def searches(
    half: Sequence[CurveTable], tools: Sequence[str], settings: Mapping[str, Setting], repeats: int, full_runs: int
) -> list[Task]:
    """Every tool on every table, so many times; those that take a second a search a quarter as often."""
    times = {tool: -(-repeats // 4) if tool in peers.SLOW else repeats for tool in tools}
    return [
        Task(curves.name, tool, repeat, settings.get(tool, BEFORE), full_runs)
        for tool in tools
        for curves in half
        for repeat in range(times[tool])
    ]


def choose(repeats: int, jobs: int, full_runs: int) -> None:
    """Rank our settings on the choosing half, and the peers with both lengths that their shortest trials may have."""
    half, _ = tables.halves(_tables().values())
    settings = {str(setting): setting for setting in grid()}
    settings |= {
        f"{peer}{FROM}{ends[0]:.2f}": replace(BEFORE, ends=ends)
        for peer in peers.available()
        for ends in (NINTH, TWENTIETH)
    }
    tools = list(settings)
    regrets = run(searches(half, tools, settings, repeats, full_runs), jobs)
    sources = by_source(regrets)
    rows = []
    for tool in sorted(tools, key=lambda tool: float(mean(regrets, tool)[-1])):
        each = [mean({name: regrets[name] for name in names}, tool)[-1] for names in sources.values()]
        means = mean(regrets, tool)
        rows.append((tool, *(f"{x:.3f}" for x in each), f"{means[-1]:.3f}", f"{means.mean():.3f}"))
    print(table((f"{full_runs} full runs", *sources, "all, at the end", "over the budget"), rows))


def report(repeats: int, jobs: int, full_runs: int, keep: Path | None, without: Sequence[str]) -> None:
    """Ours and every peer on the reporting half, but for those ``without`` which it is to be."""
    _, half = tables.halves(_tables().values())
    settings = {"ours": CHOSEN, "ours by value": BY_VALUE, "ours before": BEFORE}
    tools = [*settings, *(peer for peer in peers.available() if peer not in without)]
    regrets = run(searches(half, tools, settings, repeats, full_runs), jobs, keep)
    text = body(regrets, tools, settings, full_runs)
    option = "" if full_runs == FULL_RUNS else f" --full-runs {full_runs}"
    command = f"python -m benchmarks.bench_simulate{option}"
    record(TITLE.format(full_runs), command, hardware(*peers.packages(tools)), text)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_simulate", description=__doc__)
    parser.add_argument("--choose", action="store_true", help="rank settings of our own on the choosing half")
    parser.add_argument("--scale", action="store_true", help="10,000 candidates on 1,000 workers")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--full-runs", type=int, default=FULL_RUNS, help=f"the budget ({FULL_RUNS})")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="searches are kept there, for another run to go on")
    parser.add_argument(
        "--without", nargs="+", default=[], choices=list(peers.SETTINGS), metavar="PEER", help="left out"
    )
    args = parser.parse_args()
    start = time.perf_counter()
    if args.scale:
        from benchmarks import bench_scale

        return bench_scale.main()
    if args.choose:
        choose(args.repeats, args.jobs, args.full_runs)
    else:
        report(args.repeats, args.jobs, args.full_runs, args.keep, args.without)
    print(f"{time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
