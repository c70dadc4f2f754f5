"""What each estimator of `equilibrium` costs beside reverse mode, and what its gradient is worth as training goes on.

One model of preset ``cpu-tiny`` is trained by tracking. At three
checkpoints every estimator makes the gradient of the same batch: CPU time on one thread (variants take turns), bytes
that autograd keeps at the most, and the cosine with the implicit gradient, without the head.

Then models are trained by each, over seeds: what they reach after as many steps, and in as much CPU time, as tracking
takes. ``BPTT-1`` keeps about what tracking keeps.

    python -m benchmarks.bench_equilibrium [--steps 100,200,300] [--rounds 5] [--train 240] [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from analysis.stats.interval import Interval, mean_interval
from benchmarks.results import hardware, record, table
from benchmarks.saved import most_saved
from benchmarks.turns import Variant, clock, seconds
from trainables.equilibrium.config import EquilibriumConfig, EstimatorName
from trainables.equilibrium.estimators import ESTIMATORS
from trainables.equilibrium.estimators.api import Problem
from trainables.equilibrium.probe import body, non_normality, reference
from trainables.equilibrium.stability import cosine
from trainables.equilibrium.task import EquilibriumTask
from trainables.language.task import losses
from trainables.registry import build_config, get_family, resolve

TITLE = "Estimators of equilibrium"
ARMS: Mapping[str, tuple[EstimatorName, Mapping[str, Any]]] = {
    "BPTT-40": ("bptt", {"bptt_steps": 40}),
    "BPTT-10": ("bptt", {"bptt_steps": 10}),
    "implicit (GMRES)": ("implicit", {}),
    "EP": ("ep", {}),
    "AEP, frozen": ("aep_frozen", {}),
    "AEP, frozen, compensated": ("aep_frozen_rc", {}),
    "AEP, tracking, pair": ("aep_tracking", {}),
    "AEP, tracking, dyadic": ("aep_dyadic", {}),
    "holomorphic, 4 points": ("holo", {}),
}
TRACKING = "AEP, tracking, dyadic"
TRAINED: Mapping[str, tuple[EstimatorName, Mapping[str, Any]]] = {
    TRACKING: ARMS[TRACKING],  # first: the others get its time
    "implicit (GMRES)": ARMS["implicit (GMRES)"],
    "BPTT-1": ("bptt", {"bptt_steps": 1}),
    "BPTT-40": ARMS["BPTT-40"],
    "AEP, frozen": ARMS["AEP, frozen"],
    "EP": ARMS["EP"],
}
SEEDS = (7, 42, 1337)
EVAL_EVERY = 20


def config_of(**fields: Any) -> EquilibriumConfig:
    """Preset ``cpu-tiny`` with other fields."""
    config = build_config(get_family("equilibrium"), fields, preset="cpu-tiny")
    assert isinstance(config, EquilibriumConfig)
    return config


def problem_of(task: EquilibriumTask, name: str) -> Problem:
    """The task's weights on eight sequences of the validation split, with the settings of an arm."""
    estimator, fields = ARMS[name]
    config = config_of(estimator=estimator, **fields)
    return Problem(config, task.model.weights, task.sequences("val", 8))


def gradient_by(task: EquilibriumTask, name: str) -> Mapping[str, torch.Tensor]:
    """The free phase and the gradient of an arm."""
    return ESTIMATORS[ARMS[name][0]](problem_of(task, name)).gradients


def costs(task: EquilibriumTask, rounds: int) -> dict[str, tuple[float, float]]:
    """Milliseconds and KiB that autograd keeps at the most, by arm."""
    variants = [Variant(name, (partial(gradient_by, task, name),), 1) for name in ARMS]
    times = seconds(variants, rounds)
    return {
        name: (
            1e3 * statistics.median(ends[0] for ends in times[name]),
            most_saved(partial(gradient_by, task, name)) / 1024,
        )
        for name in ARMS
    }


def cosines(task: EquilibriumTask) -> dict[str, float]:
    """The cosine of each arm's gradient with the implicit one, the head's left out."""
    exact = body(task.config, reference(problem_of(task, "implicit (GMRES)")).gradients)
    return {name: cosine(body(task.config, gradient_by(task, name)), exact).item() for name in ARMS}


def measured(steps: Sequence[int], rounds: int, data_dir: Path) -> str:
    """The table: costs at the last checkpoint, cosines at each."""
    config = config_of()
    resolve(get_family("equilibrium").data).prepare(config.data, data_dir)
    task = EquilibriumTask(config, seed=0, device="cpu", data_dir=data_dir)
    taken, found, skew = 0, [], []
    for step in steps:
        for _ in range(step - taken):
            task.step()
        taken = step
        found.append(cosines(task))
        problem = problem_of(task, "implicit (GMRES)")
        skew.append(f"{non_normality(problem.linearised, problem.free.z):.2f} at step {step}")
    cost = costs(task, rounds)
    base = cost["BPTT-40"]
    header = ("estimator", "ms", "of BPTT-40", "saved, KiB", "of BPTT-40", *(f"cosine, step {step}" for step in steps))
    rows = [
        (
            name,
            f"{cost[name][0]:.0f}",
            f"{cost[name][0] / base[0]:.2f}",
            f"{cost[name][1]:,.0f}",
            f"1/{base[1] / cost[name][1]:.0f}",
            *(f"{at[name]:.3f}" for at in found),
        )
        for name in ARMS
    ]
    return f"Non-normality |Jv - J'v| / |Jv|: {', '.join(skew)}.\n\n{table(header, rows)}"


@dataclass(frozen=True)
class Reading:
    """A model on the way: steps and CPU seconds of training so far, and its loss on the validation split."""

    step: int
    seconds: float
    val_ce: float


def trained(arm: str, seed: int, steps: int, at_least: float, data_dir: Path) -> list[Reading]:
    """Train by an arm for ``steps`` and, if that took less, for ``at_least`` CPU seconds; a reading every 20 steps."""
    estimator, fields = TRAINED[arm]
    config = config_of(estimator=estimator, **fields)
    task = EquilibriumTask(config, seed=seed, device="cpu", data_dir=data_dir)
    rows, spent, readings = task.sequences("val"), 0.0, list[Reading]()
    for step in itertools.count(1):
        start = clock("cpu")
        task.step()
        spent += clock("cpu") - start
        if step % EVAL_EVERY == 0:
            with torch.inference_mode():
                loss = losses(task.model(rows[:, :-1]).logits, rows).mean().item()
            readings.append(Reading(step, spent, loss))
            if step >= steps and spent >= at_least:
                return readings
    raise AssertionError("never here: steps do not end")


def raced(steps: int, data_dir: Path) -> str:
    """The table of what models reach by each arm, over seeds, and how far that is from tracking's of the same seed."""
    runs = {seed: {TRACKING: trained(TRACKING, seed, steps, 0.0, data_dir)} for seed in SEEDS}
    for seed in SEEDS:
        given = runs[seed][TRACKING][-1].seconds
        for arm in TRAINED:
            if arm != TRACKING:
                runs[seed][arm] = trained(arm, seed, steps, given, data_dir)

    def reached(arm: str, seed: int) -> tuple[float, float]:
        given = runs[seed][TRACKING][-1].seconds
        return (
            next(reading.val_ce for reading in runs[seed][arm] if reading.step == steps),
            [reading.val_ce for reading in runs[seed][arm] if reading.seconds <= given][-1],
        )

    rows = []
    for arm in TRAINED:
        each = [reached(arm, seed) for seed in SEEDS]
        ahead = [
            [mine - its for mine, its in zip(reached(arm, seed), reached(TRACKING, seed), strict=True)]
            for seed in SEEDS
        ]
        pace = statistics.fmean(runs[seed][arm][-1].seconds / runs[seed][arm][-1].step for seed in SEEDS)
        cells = [f"{1e3 * pace:.0f}"]
        for kind in (0, 1):
            cells.append(f"{statistics.fmean(of_seed[kind] for of_seed in each):.3f}")
            cells.append("" if arm == TRACKING else _signed(mean_interval([of_seed[kind] for of_seed in ahead])))
        rows.append((arm, *cells))
    header = (
        "estimator",
        "ms a step",
        f"val_ce, {steps} steps",
        "less tracking's",
        "val_ce, equal time",
        "less tracking's",
    )
    return table(header, rows)


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def main() -> int:
    """Measure on one thread of the CPU."""
    parser = argparse.ArgumentParser(
        description="What estimators of equilibrium cost, and where their gradients point."
    )
    parser.add_argument("--steps", default="100,200,300", help="of training, at which cosines are taken")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train", type=int, default=240, help="steps that models are trained for by each estimator")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    if arguments.train < EVAL_EVERY or arguments.train % EVAL_EVERY:
        parser.error(f"--train {arguments.train}: it takes a multiple of {EVAL_EVERY}")
    torch.set_num_threads(1)
    steps = sorted(int(step) for step in arguments.steps.split(","))
    config = config_of()
    body_text = (
        f"Preset `cpu-tiny` trained by tracking: {config.batch_size} sequences of {config.context} bytes a step, "
        f"rate {config.lr:g}, penalty {config.jr:g}. CPU time on one thread for a gradient of 8 sequences, a "
        f"free phase of {config.t1} steps included, median of {arguments.rounds} rounds; nudged phases of up to "
        f"{config.t2} steps end at an adjoint residual of {config.t2_tol:g}.\n\n"
        f"{measured(steps, arguments.rounds, arguments.data_dir)}\n\n"
        f"Models trained by each estimator, {len(SEEDS)} seeds: mean loss on the validation split after "
        f"{arguments.train} steps, and when as much CPU time was spent as tracking took for them; differences from "
        "tracking in pairs of one seed, with 95% intervals.\n\n"
        f"{raced(arguments.train, arguments.data_dir)}"
    )
    record(TITLE, "python -m benchmarks.bench_equilibrium", hardware("torch"), body_text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
