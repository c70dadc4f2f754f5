"""The policy at 10,000 candidates on 1,000 workers: what a decision costs, and how many slots it leaves idle.

Curves are closed forms with seed noise, made when a member starts, so that little but the history is in memory:
floor + drop * (step / 1000)^-rate, with a floor, a drop and a rate of the config's own; every seed has a shift of its
own and noise at each reading. Jobs straggle (log-normal, sigma 0.5), and one report in 50 fails instead.

What it is not: a measurement of Ray, of a journal's disk, or of sampling (configs are drawn at random).
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np

from benchmarks.results import hardware, record, table
from tune_rh.plan.kinds import Sampler, Search
from tune_rh.plan.stages import Stage
from tune_rh.simulation import table_source
from tune_rh.simulation.clock import Array, Conditions, Trace
from tune_rh.simulation.curve_table import Parameter, Value

TITLE = "A large search: 10,000 candidates on 1,000 workers"
NUM_CANDIDATES, NUM_WORKERS = 10_000, 1_000
NUM_SEEDS = 5
SECONDS_PER_STEP = 0.1
SEED_SPREAD, READING_NOISE = 0.01, 0.002
_STEPS = np.arange(1_000, 21_000, 1_000)


class ClosedForm:
    """One curve, worked out when its values are asked for; the rest of a `Curve` is the same for all."""

    steps, seconds, is_lost = _STEPS, _STEPS * SECONDS_PER_STEP, False

    def __init__(self, config: int, replicate: int, floor: float, drop: float, rate: float) -> None:
        self.seed = replicate
        self._config = config
        self._clean = (floor, drop, rate)

    @cached_property
    def values(self) -> Array:
        """(20,) the loss at each step."""
        floor, drop, rate = self._clean
        rng = np.random.default_rng([self._config, self.seed])
        noise = rng.normal(0.0, SEED_SPREAD) + rng.normal(0.0, READING_NOISE, len(_STEPS))
        return np.asarray(floor + drop * (_STEPS / 1_000.0) ** -rate + noise)


class Replicates:
    """A config's curves, made when asked for."""

    def __init__(self, config: int, floor: float, drop: float, rate: float) -> None:
        self._facts = (floor, drop, rate)
        self._config = config

    def __len__(self) -> int:
        return NUM_SEEDS

    def __getitem__(self, replicate: int) -> ClosedForm:
        if not 0 <= replicate < NUM_SEEDS:
            raise IndexError(replicate)
        return ClosedForm(self._config, replicate, *self._facts)


class ClosedForms:
    """A table of closed forms, as `tune_rh.simulation.clock.Table` asks for it; curves are not kept."""

    name, objective = "closed-forms", "val_loss"
    mode: Literal["min"] = "min"
    parameters: Mapping[str, Parameter] = {}
    steps = tuple(_STEPS.tolist())

    def __init__(self, num_configs: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        floor = rng.gamma(2.0, 0.1, num_configs)
        drop, rate = rng.uniform(0.2, 2.0, num_configs), rng.uniform(0.3, 1.0, num_configs)
        self.configs: tuple[Mapping[str, Value], ...] = tuple({} for _ in range(num_configs))
        self.labels = tuple(f"config {i}" for i in range(num_configs))
        facts = zip(floor.tolist(), drop.tolist(), rate.tolist(), strict=True)
        self.curves: Any = tuple(Replicates(i, *fact) for i, fact in enumerate(facts))
        self.truth: Array = floor + drop * 20.0**-rate

    def nearest(self, config: Mapping[str, Value], exclude: set[int]) -> int:
        """There are no parameters to be near in."""
        raise ValueError("closed forms have no parameters")


def plan(num_candidates: int) -> Search:
    """Stages to 1,000, 5,000 and 20,000 steps with 2, 3 and 5 seeds; everything else as plans have it."""
    return Search(
        name="scale",
        family="table",
        space="table",
        control="",
        num_candidates=num_candidates,
        seeds=tuple(range(NUM_SEEDS)),
        eval_every=1_000,
        stages=(
            Stage(until_step=1_000, num_seeds=2),
            Stage(until_step=5_000, num_seeds=3),
            Stage(until_step=20_000, num_seeds=5),
        ),
        sampler=Sampler(name="random"),
    )


def simulate(num_candidates: int, num_workers: int) -> Trace:
    """One search with stragglers and failures."""
    closed_forms = ClosedForms(num_candidates)
    conditions = Conditions(workers=num_workers, failures=0.02, stragglers=0.5, trace_every=100)
    return table_source.simulate(plan(num_candidates), closed_forms, conditions)


def idle_until(trace: Trace, num_workers: int, share: float) -> float:
    """Share of slot time without a job up to ``share`` of the steps: the tail of a search has too few members left."""
    end = int(np.searchsorted(trace.steps, share * trace.steps[-1]))
    lengths = np.diff(trace.seconds[: end + 1])
    return float(((num_workers - trace.busy[:end]) * lengths).sum() / (num_workers * lengths.sum()))


class LongestCollection:
    """Watches Python's garbage collector: its longest pause in seconds."""

    def __init__(self) -> None:
        self.longest_s = self._start = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """See `gc.callbacks`."""
        now = time.perf_counter()
        if phase == "start":
            self._start = now
        else:
            self.longest_s = max(self.longest_s, now - self._start)


def row(num_candidates: int, num_workers: int) -> tuple[str, ...]:
    """What one search took."""
    collection = LongestCollection()
    gc.callbacks.append(collection)
    start = time.perf_counter()
    trace = simulate(num_candidates, num_workers)
    wall = time.perf_counter() - start
    gc.callbacks.remove(collection)
    us = 1e6 * trace.decision_s
    return (
        f"{num_candidates:,} / {num_workers:,}",
        f"{len(us):,}",
        f"{us.mean():.0f}",
        f"{np.quantile(us, 0.99):.0f}",
        f"{us.max() / 1000:.0f}",
        f"{1000 * collection.longest_s:.0f}",
        f"{1e6 / us.mean():,.0f}",
        f"{idle_until(trace, num_workers, 0.9):.2%}",
        f"{trace.idle:.1%}",
        f"{trace.seconds[-1] / 3600:.1f}",
        f"{wall:.0f}",
    )


def main() -> int:
    """A tenth of it, and all of it."""
    header = (
        "candidates / workers",
        "reports",
        "us a report",
        "99 of 100",
        "longest, ms",
        "longest garbage collection, ms",
        "reports a second",
        "idle in the first 90% of steps",
        "idle overall",
        "virtual hours",
        "wall-clock, s",
    )
    sizes = ((NUM_CANDIDATES // 10, NUM_WORKERS // 10), (NUM_CANDIDATES, NUM_WORKERS))
    rows = [row(*size) for size in sizes]
    text = (
        f"{table(header, rows)}\n\nOne process. A report's time is all that follows from it: the event into the "
        "history, the verdict, gates, and the jobs that are handed out, on one core; it does not hold the curves or "
        "the clock, which the wall-clock does. The longest are those in which Python's garbage collector goes over the "
        "whole history. With seeds 2, 3, 5 to 1,000, 5,000 and 20,000 steps, stragglers "
        "(log-normal, sigma 0.5) and 2% of reports failing."
    )
    record(TITLE, "python -m benchmarks.bench_simulate --scale", hardware("numpy"), text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
