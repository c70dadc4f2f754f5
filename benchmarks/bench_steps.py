"""Optimiser steps a second of preset ``e4`` (width 256, 6 layers), as a ratio to plain float32 with math attention.

On a CPU: 64 windows a step on two threads. On a GPU besides: 512 windows a step in float32 and in bfloat16, with
tokens a second. Variants take turns in one process, so that whatever else the machine does falls on all of them.

What it is not: a test. Nothing fails here for being slow.

    python benchmarks/bench_steps.py --data-dir data
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainables.registry import build_config, get_family
from trainables.spacing_mdn.data.source import SOURCE
from trainables.spacing_mdn.task import SpacingTask

_DATA = "first100k"


@dataclass(frozen=True)
class Variant:
    """A task in training under a context that picks kernels."""

    name: str
    task: SpacingTask
    kernels: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext

    def steps_per_s(self, steps: int, device: str) -> float:
        """Time ``steps`` steps; each ends by reading its loss, so nothing is left running on the device."""
        with self.kernels():
            start = time.perf_counter()
            for _ in range(steps):
                self.task.step()
            if device == "cuda":
                torch.cuda.synchronize()
            return steps / (time.perf_counter() - start)


def math_attention() -> AbstractContextManager[Any]:
    """Attention as matrix products and a softmax, without a fused kernel."""
    return sdpa_kernel(SDPBackend.MATH)


def variants(device: str, batch_size: int, data_dir: Path) -> list[Variant]:
    """The baseline first."""

    def task(**fields: Any) -> SpacingTask:
        overrides = {"data": _DATA, "batch_size": batch_size, **fields}
        config = build_config(get_family("spacing_mdn"), overrides, preset="e4")
        return SpacingTask(config, seed=0, device=device, data_dir=data_dir)

    found = [
        Variant("float32, math attention", task(amp="off"), math_attention),
        Variant("float32, fused attention", task(amp="off")),
        Variant("float32, fused, 4 query cuts", task(amp="off", query_cuts=4)),
    ]
    if device == "cuda":
        found.append(Variant("bfloat16, math attention", task(amp="bf16"), math_attention))
        found.append(Variant("bfloat16, fused attention", task(amp="bf16")))
        found.append(Variant("bfloat16, fused, 4 query cuts", task(amp="bf16", query_cuts=4)))
    return found


def measure(device: str, batch_size: int, steps: int, rounds: int, data_dir: Path) -> None:
    """Print the table of one device."""
    found = variants(device, batch_size, data_dir)
    config = found[0].task.config
    tokens = batch_size * (config.context + config.n_slots)
    speeds: dict[str, list[float]] = {variant.name: [] for variant in found}
    for turn in range(rounds + 1):
        for variant in found:
            speed = variant.steps_per_s(1 if turn == 0 else steps, device)
            if turn:  # the first step of all warms kernels and allocators
                speeds[variant.name].append(speed)
    baseline = statistics.median(speeds[found[0].name])
    print(f"\n{device}: e4, {batch_size} windows a step, {tokens} tokens; median of {rounds} rounds of {steps} steps")
    print(f"{'variant':32}{'steps/s':>10}{'tokens/s':>12}{'ratio':>8}{'spread':>9}")
    for name, values in speeds.items():
        middle = statistics.median(values)
        spread = (max(values) - min(values)) / middle
        print(f"{name:32}{middle:10.2f}{middle * tokens:12.0f}{middle / baseline:8.2f}{spread:9.0%}")


def hardware() -> str:
    """What ran this, and when."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{datetime.date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, {gpu}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def main() -> int:
    """Run on the CPU, and on a GPU if there is one."""
    parser = argparse.ArgumentParser(description="Steps a second of spacing_mdn's e4.")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where data sets are; first100k is made")
    parser.add_argument("--steps", type=int, default=1, help="steps in a round on the CPU (a GPU takes 20 times more)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    SOURCE.prepare(_DATA, arguments.data_dir)
    torch.set_num_threads(2)
    print(hardware())
    measure("cpu", 64, arguments.steps, arguments.rounds, arguments.data_dir)
    if torch.cuda.is_available():
        measure("cuda", 512, 20 * arguments.steps, arguments.rounds, arguments.data_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
