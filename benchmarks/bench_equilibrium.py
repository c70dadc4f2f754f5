"""What each estimator of `equilibrium` costs beside reverse mode, and what its gradient is worth as training goes on.

One model of preset ``cpu-tiny`` is trained by tracking. At three
checkpoints every estimator makes the gradient of the same batch: CPU time on one thread (variants take turns), bytes
that autograd keeps at the most, and the cosine with the implicit gradient, without the head.

    python -m benchmarks.bench_equilibrium [--steps 100,200,300] [--rounds 5] [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import hardware, record, table
from benchmarks.saved import most_saved
from benchmarks.turns import Variant, seconds
from trainables.equilibrium.config import EquilibriumConfig, EstimatorName
from trainables.equilibrium.estimators import ESTIMATORS
from trainables.equilibrium.estimators.api import Problem
from trainables.equilibrium.probe import body, non_normality, reference
from trainables.equilibrium.stability import cosine
from trainables.equilibrium.task import EquilibriumTask
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


def main() -> int:
    """Measure on one thread of the CPU."""
    parser = argparse.ArgumentParser(
        description="What estimators of equilibrium cost, and where their gradients point."
    )
    parser.add_argument("--steps", default="100,200,300", help="of training, at which cosines are taken")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    steps = sorted(int(step) for step in arguments.steps.split(","))
    config = config_of()
    body_text = (
        f"Preset `cpu-tiny` trained by tracking: {config.batch_size} sequences of {config.context} bytes a step, "
        f"rate {config.lr:g}, penalty {config.jr:g}. CPU time on one thread for a gradient of 8 sequences, a "
        f"free phase of {config.t1} steps included, median of {arguments.rounds} rounds; nudged phases of up to "
        f"{config.t2} steps end at an adjoint residual of {config.t2_tol:g}.\n\n"
        f"{measured(steps, arguments.rounds, arguments.data_dir)}"
    )
    record(TITLE, "python -m benchmarks.bench_equilibrium", hardware("torch"), body_text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
