"""Gates on planted curves: what each scheduler loses against an oracle where ranks last, reverse, or say little.

    python -m benchmarks.bench_planted

Each world is a kind of curve that was made here, so that the best config is known and why it is hard to find. Regret is
that of `benchmarks.bench_simulate`: 0 is what the oracle hands over, 1 the median config.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.bench_simulate import FRACTIONS, WORKERS
from benchmarks.results import hardware, record, table
from benchmarks.settings import BEFORE, BY_VALUE, CHOSEN, Setting, plan_for
from tune_rh.simulation.clock import Conditions
from tune_rh.simulation.curve_table import Array, Curve, CurveTable
from tune_rh.simulation.regret import prior_regret
from tune_rh.simulation.table_source import simulate

TITLE = "Schedulers on planted curves"
CONFIGS, SEEDS, STEPS, FULL_RUNS, REPEATS = 120, 5, 40, 25, 20
SETTINGS = {
    "gates that learn": CHOSEN,
    "the value of information": BY_VALUE,
    "the same gates, eta 2 throughout": replace(CHOSEN, gates="promote", load=1.0),
    "halving, as before": BEFORE,
    "every config to the end": Setting(eta=2.0, seeds=(1,), ends=(1.0,), load=1.0),
}

Rng = np.random.Generator
Made = Callable[[Rng], tuple[Array, float]]
"""(configs, steps) means over seeds, falling, and the standard deviation of seeds."""


def _falling(levels: Array, rates: Array) -> Array:
    """Curves from 1 above their level, which they come to at a rate of their own."""
    at = np.arange(1, STEPS + 1) / STEPS
    return np.asarray(levels[:, None] + np.exp(-rates[:, None] * at))


def ranks_last(rng: Rng) -> tuple[Array, float]:
    """The order at the first step is that at the last."""
    return _falling(rng.random(CONFIGS), np.full(CONFIGS, 5.0)), 0.02


def ranks_reverse(rng: Rng) -> tuple[Array, float]:
    """The better in the end, the further it has to fall: up to the middle the order is the reverse of the last one."""
    levels = rng.random(CONFIGS)
    at = np.arange(1, STEPS + 1) / STEPS
    return levels[:, None] + (3.0 - 2.0 * levels)[:, None] * np.exp(-1.4 * at), 0.02


def seeds_lie(rng: Rng) -> tuple[Array, float]:
    """Ranks last, but seeds differ by as much as the better half of the configs."""
    return _falling(rng.random(CONFIGS), np.full(CONFIGS, 5.0)), 0.25


def schedules_differ(rng: Rng) -> tuple[Array, float]:
    """Half of the configs hold their learning rate, and fall by half of what they will in the last fifth of the run."""
    levels = rng.random(CONFIGS)
    curves = _falling(levels, np.full(CONFIGS, 5.0))
    late = np.clip((np.arange(1, STEPS + 1) / STEPS - 0.8) / 0.2, 0.0, 1.0)
    held = rng.random(CONFIGS) < 0.5
    return np.asarray(curves + np.where(held, 0.5, 0.0)[:, None] * (1.0 - late)), 0.02


WORLDS: dict[str, Made] = {
    "ranks last": ranks_last,
    "ranks reverse": ranks_reverse,
    "seeds lie": seeds_lie,
    "schedules differ": schedules_differ,
}


def planted(world: str, number: int) -> CurveTable:
    """One table of a world; seeds are of each config's own, the same along its curve."""
    rng = np.random.default_rng([number, *world.encode()])
    means, noise = WORLDS[world](rng)
    shifts = noise * rng.standard_normal((CONFIGS, SEEDS, 1))
    shifts -= shifts.mean(axis=1, keepdims=True)  # the truth is the mean that was planted
    values = means[:, None, :] + shifts
    steps = np.arange(1, STEPS + 1)
    curves = tuple(
        tuple(Curve(seed, steps, row, steps.astype(np.float64)) for seed, row in enumerate(rows)) for rows in values
    )
    empty: tuple[dict[str, float | int | str | bool], ...] = tuple({} for _ in range(CONFIGS))
    labels = tuple(f"config {i}" for i in range(CONFIGS))
    return CurveTable(f"{world} {number}", "loss", "min", "planted", empty, labels, curves)


def regret(curves: CurveTable, setting: Setting, repeat: int) -> Array:
    """(fractions,) of one simulated search."""
    budget = FULL_RUNS * curves.max_step
    conditions = Conditions(workers=WORKERS, max_steps=budget)
    trace = simulate(plan_for(curves, setting, FULL_RUNS), curves, conditions, repeat)
    prior = prior_regret(curves)
    return np.asarray(trace.at(FRACTIONS * budget, prior) / prior)


def losses(world: str, setting: Setting, repeats: int) -> tuple[float, float, float]:
    """Mean regret at the end with its standard error, and over the budget; each repeat has a table of its own."""
    found = np.array([regret(planted(world, number), setting, number) for number in range(repeats)])
    return float(found[:, -1].mean()), float(found[:, -1].std(ddof=1) / repeats**0.5), float(found.mean())


def main() -> int:
    """Every setting in every world."""
    rows = []
    for name, setting in SETTINGS.items():
        cells = [losses(world, setting, REPEATS) for world in WORLDS]
        rows.append((name, *(f"{end:.3f} ± {error:.3f} / {area:.3f}" for end, error, area in cells)))
    words = "; ".join(f"*{world}*: {(made.__doc__ or '').rstrip('.')}" for world, made in WORLDS.items())
    text = (
        f"{table(('end ± standard error / over the budget', *WORLDS), rows)}\n\n{REPEATS} tables a world, {CONFIGS} "
        f"configs each, {FULL_RUNS} full runs' worth of steps on {WORKERS} workers; 0 is what an oracle hands over. "
        f"{words}.\n\n" + "\n".join(f"- {name}: {setting}" for name, setting in SETTINGS.items())
    )
    record(TITLE, "python -m benchmarks.bench_planted", hardware("numpy"), text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
