"""On spacings in a random order every layout ends at the marginal, and a leak falls far below it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import alone
from tests.laws.test_alarms import windows_begin_one_late
from tests.laws.test_family_laws import LAYOUTS
from trainables.arrays import Array
from trainables.registry import build_config, get_family
from trainables.spacing_mdn.data.source import SOURCE
from trainables.spacing_mdn.data.spacings import load
from trainables.spacing_mdn.task import SpacingTask

FIELDS: dict[str, Any] = {
    "data": "shuffled",
    "batch_size": 32,
    "accumulation": 1,
    "n_components": 4,
    "lr": 1e-2,
    "schedule_steps": 150,
    "warmup": 10,
    "entropy_reg": 0.0,
    "dropout": 0.0,
    "slot_dropout": 0.0,
    "eval_stride": 16,
}
EDGES = np.linspace(0.0, 3.5, 71)


@pytest.fixture(scope="module")
def shuffled_dir(first100k_dir: Path) -> Path:
    with alone(first100k_dir):
        SOURCE.prepare("shuffled", first100k_dir)
    return first100k_dir


def beyond_the_marginal(data_dir: Path, fields: dict[str, Any], preset: str = "tiny") -> Array:
    """What a trained model costs more than the histogram of the training split, target by target, in nats."""
    torch.set_num_threads(1)
    config = build_config(get_family("spacing_mdn"), fields, FIELDS, preset=preset)
    task = SpacingTask(config, seed=1, device="cpu", data_dir=data_dir)
    for _ in range(config.schedule_steps):
        task.step()
    counts = np.histogram(load("shuffled", data_dir).train.spacings, EDGES)[0] + 0.5
    density = counts / counts.sum() / np.diff(EDGES)
    windows = task.windows("val")
    targets = windows.targets(windows.evaluated_starts())
    if not config.reads_once:
        targets = targets[:, -config.eval_tail :]
    marginal = -np.log(density[np.digitize(targets.flatten(), EDGES) - 1])
    difference: Array = task.target_nll("val").numpy() - marginal
    return difference


@pytest.mark.parametrize("layout", [{}, *LAYOUTS["spacing_mdn"].values()], ids=["tiny", *LAYOUTS["spacing_mdn"]])
def test_every_layout_ends_at_the_marginal(layout: dict[str, Any], shuffled_dir: Path) -> None:
    difference = beyond_the_marginal(shuffled_dir, layout)
    assert len(difference) > 600
    # A mean and a scale of its own window each cost half a nat by the number of spacings that they come from.
    own_units = 1 / 32 if layout.get("block_norm") else 0.0
    assert abs(difference.mean() - own_units) < 0.02


@pytest.mark.parametrize("ar_bank", [0, 256])
def test_a_small_network_ends_there_too_with_a_bank_or_without(ar_bank: int, shuffled_dir: Path) -> None:
    fields = {"ar_bank": ar_bank, "prime_lines": 0, "train_blocks": 0}
    assert abs(beyond_the_marginal(shuffled_dir, fields, "tiny-mlp").mean()) < 0.02


def test_a_leak_falls_far_below_it(shuffled_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows_begin_one_late(monkeypatch)
    assert beyond_the_marginal(shuffled_dir, LAYOUTS["spacing_mdn"]["data alone"]).mean() < -0.5
