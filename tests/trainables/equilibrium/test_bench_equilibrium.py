"""What the benchmark of estimators measures: every arm, with the settings that its name says, at one free state."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import bench_equilibrium
from benchmarks.bench_equilibrium import ARMS
from benchmarks.saved import most_saved
from trainables.equilibrium.estimators import ESTIMATORS
from trainables.equilibrium.task import EquilibriumTask


def test_every_estimator_has_an_arm() -> None:
    assert {name for name, _ in ARMS.values()} == set(ESTIMATORS)


def test_every_arm_costs_something_and_points_somewhere(bytes_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(bench_equilibrium.config_of, data="pydoc-257", width=8, d_ff=16, eval_sequences=8)
    monkeypatch.setattr(bench_equilibrium, "config_of", small)
    task = EquilibriumTask(small(), seed=0, device="cpu", data_dir=bytes_dir)
    costs = bench_equilibrium.costs(task, 1)
    assert costs.keys() == ARMS.keys()
    assert costs["BPTT-40"][1] > 3 * costs["BPTT-10"][1] > 3 * costs["AEP, tracking, dyadic"][1]
    cosines = bench_equilibrium.cosines(task)
    assert cosines.keys() == ARMS.keys()
    assert all(cosine > 0.9 for cosine in cosines.values())


def test_what_is_saved_counts_what_is_alive() -> None:
    x = torch.ones(1000, requires_grad=True)

    def twice() -> None:
        (x.exp().sum()).backward()
        (x.exp().sum()).backward()

    once = most_saved(lambda: x.exp().sum().backward())
    assert once == 4000
    assert most_saved(twice) == once
    assert most_saved(lambda: (x.exp().sin()).sum()) == 8000
