"""Samplers on continuous spaces with planted curves: regret for the same steps, under each scheduler of a search.

Regret is the true value of the config that would be handed over, above the best there is, divided by that of the median
of blind draws: 0 is the best, 1 a blind draw. The question is whether it pays to learn from all gates on one scale:
``tpe-extrapolating`` against ``tpe``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import optuna

from benchmarks.kept import kept
from benchmarks.results import hardware, record, table
from benchmarks.surfaces import NUM_STEPS, surfaces
from tune_rh.plan.kinds import Budget, Sampler, Search
from tune_rh.plan.stages import Scoring, Stage
from tune_rh.simulation.clock import Conditions
from tune_rh.simulation.curve_table import Array
from tune_rh.simulation.table_source import simulate

TITLE = "Samplers on continuous spaces"
WORKERS, FULL_RUNS, REPEATS = 8, 20, 8
FRACTIONS = np.linspace(0.02, 1.0, 50)
SCHEDULERS = ("halving", "value")
SAMPLERS = {name: Sampler(name=name) for name in ("tpe", "tpe-extrapolating")}
ENDS = (3, 6, 13, 25, 50)


def plan_for(scheduler: str, sampler: Sampler) -> Search:
    """A search over five stages with one seed each."""
    return Search(
        name="simulated",
        family="surface",
        space="surface",
        control="",
        num_candidates=500,
        eta=3.0,
        seeds=(0,),
        eval_every=1,
        stages=tuple(Stage(until_step=end, num_seeds=1) for end in ENDS),
        scheduler=scheduler,
        scoring=Scoring(band=0.0, extra_seeds=0.0),
        sampler=sampler,
        budget=Budget(max_steps=FULL_RUNS * NUM_STEPS),
    )


def regrets(scheduler: str, sampler: Sampler, repeats: int, keep: Path | None = None) -> Array:
    """(surfaces, repeats, fractions) of the budget; see `benchmarks.kept` for ``keep``."""
    budget = FULL_RUNS * NUM_STEPS
    conditions = Conditions(workers=WORKERS, max_steps=budget)
    plan = plan_for(scheduler, sampler)

    def one(number: int) -> Array:
        traces = [(simulate(plan, surface, conditions, number), surface.prior) for surface in surfaces()]
        return np.array([trace.at(FRACTIONS * budget, prior) / prior for trace, prior in traces])

    found = [kept(keep, (scheduler, sampler, number), partial(one, number)) for number in range(repeats)]
    return np.array(found).transpose(1, 0, 2)


def ratio(ours: Array, theirs: Array, samples: int = 1000) -> str:
    """Mean over the budget, ours over theirs; 95% bootstrap interval over surfaces and repeats, drawn in pairs."""
    one, other = ours.mean(axis=2), theirs.mean(axis=2)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(samples):
        rows = rng.integers(len(one), size=(len(one), 1))
        columns = rng.integers(one.shape[1], size=one.shape)
        drawn.append(one[rows, columns].mean() / other[rows, columns].mean())
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{one.mean() / other.mean():.2f} ({low:.2f} to {high:.2f})"


def body(found: dict[tuple[str, str], Array], repeats: int) -> str:
    """The section of RESULTS.md."""
    names = [surface.name for surface in surfaces()]
    rows = []
    for (scheduler, sampler), regret in found.items():
        ends, error = regret[:, :, -1], regret[:, :, -1].std(ddof=1, axis=1) / math.sqrt(repeats)
        each = [f"{end:.3f} ± {se:.3f}" for end, se in zip(ends.mean(axis=1), error, strict=True)]
        area = ratio(regret, found[scheduler, "tpe"]) if sampler != "tpe" else "1"
        rows.append((f"{scheduler}, {sampler}", *each, f"{ends.mean():.3f}", f"{regret.mean():.3f}", area))
    head = ("scheduler, sampler", *names, "mean at the end", "over the budget", "over the budget, to TPE (95%)")
    return (
        f"{table(head, rows)}\n\nMean regret after {FULL_RUNS} full runs' worth of steps on {WORKERS} workers, "
        f"{repeats} repeats a surface, ± one standard error. Stages end "
        f"at {', '.join(map(str, ENDS))} of {NUM_STEPS} steps."
    )


def searched(schedulers: Sequence[str], repeats: int, keep: Path | None) -> dict[tuple[str, str], Array]:
    """Regrets by scheduler and sampler."""
    return {
        (scheduler, name): regrets(scheduler, sampler, repeats, keep)
        for scheduler in schedulers
        for name, sampler in SAMPLERS.items()
    }


def main() -> int:
    """Search all surfaces with all samplers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_samplers", description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="searches are kept there, for another run to go on")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = searched(SCHEDULERS, args.repeats, args.keep)
    record(TITLE, "python -m benchmarks.bench_samplers", hardware("optuna"), body(found, args.repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
