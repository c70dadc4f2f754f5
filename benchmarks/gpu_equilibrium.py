"""Estimators of `equilibrium` at full width on a GPU, in one short run that prints one table.

One gradient of 24 sequences of 256 random tokens at width 512 (preset ``c512``), with weights as they begin: seconds,
the height of allocated memory, the cosine with the implicit gradient without the head, and whether two runs give the
same bits. Reverse mode through 40 steps is what the others are held against.

    python -m benchmarks.gpu_equilibrium [--batch 24]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench_equilibrium import ARMS
from benchmarks.results import hardware, record, table
from trainables.equilibrium.config import EquilibriumConfig
from trainables.equilibrium.estimators import ESTIMATORS
from trainables.equilibrium.estimators.api import Estimate, Problem
from trainables.equilibrium.model import EquilibriumModel
from trainables.equilibrium.probe import body, reference
from trainables.equilibrium.stability import cosine

TITLE = "Estimators of equilibrium on a GPU"


def problem_of(name: str, weights: Mapping[str, Tensor], rows: Tensor, **fields: Any) -> Problem:
    """The problem of an arm under preset ``c512``, whose free phase is as long as reverse mode is deep."""
    estimator, more = ARMS[name]
    return Problem(EquilibriumConfig(**{"t1": 40, **more, **fields, "estimator": estimator}), weights, rows)


def timed(name: str, weights: Mapping[str, Tensor], rows: Tensor, **fields: Any) -> tuple[Estimate, float, float]:
    """An estimate, the seconds of the second of two, and GiB at their height."""
    for _ in range(2):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=ARMS[name][0] != "holo"):
            estimate = ESTIMATORS[ARMS[name][0]](problem_of(name, weights, rows, **fields))
        torch.cuda.synchronize()
        taken = time.perf_counter() - began
    return estimate, taken, torch.cuda.max_memory_allocated() / 2**30


def main() -> int:
    """Everything, where there is a GPU."""
    parser = argparse.ArgumentParser(description="Estimators of equilibrium at width 512, on a GPU.")
    parser.add_argument("--batch", type=int, default=24)
    batch = parser.parse_args().batch
    if not torch.cuda.is_available():
        print("No GPU: nothing was measured.")
        return 1
    config = EquilibriumConfig(t1=40)
    torch.manual_seed(0)
    weights = EquilibriumModel(config).cuda().weights
    rows = torch.randint(config.vocab_size, (batch, config.context + 1), device="cuda")
    exact = body(config, reference(Problem(config, weights, rows)).gradients)
    found, base = [], 0.0
    for name in ARMS:
        (estimate, taken, height), (again, _, _) = (timed(name, weights, rows) for _ in range(2))
        base = base or taken
        same = all(torch.equal(gradient, again.gradients[key]) for key, gradient in estimate.gradients.items())
        aligned = cosine(body(config, estimate.gradients), exact).item()
        cells = (f"{taken:.2f}", f"{taken / base:.2f}", f"{height:.1f}", f"{aligned:.4f}", "yes" if same else "no")
        found.append((name, *cells))
    header = ("estimator", "seconds", "of BPTT-40", "GiB", "cosine", "same bits twice")
    record(TITLE, "python -m benchmarks.gpu_equilibrium", hardware("torch"), table(header, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
