"""Small synthetic splits in place of files, and tasks over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainables.registry import build_config, get_family
from trainables.spacing_mdn import task as task_module
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.data.spacings import Part, SpacingData
from trainables.spacing_mdn.task import SpacingTask

MakeTask = Callable[..., SpacingTask]


def synthetic_part(num_blocks: int, seed: int) -> Part:
    """Positive, anticorrelated spacings with mean about 1, at rising heights."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=num_blocks * BLOCK + 1)
    spacings = np.abs(1.0 + 0.3 * (noise[1:] - 0.6 * noise[:-1])) + 1e-3
    return Part(spacings, np.linspace(2.0, 9.0, num_blocks))


@pytest.fixture(scope="session")
def splits() -> SpacingData:
    """A data set of 12, 4 and 4 blocks."""
    return SpacingData("first100k", synthetic_part(12, 0), synthetic_part(4, 1), synthetic_part(4, 2), "synthetic")


@pytest.fixture
def make_task(splits: SpacingData, monkeypatch: pytest.MonkeyPatch) -> MakeTask:
    """Builds a task from preset ``tiny`` with overrides, over the synthetic splits."""
    torch.set_num_threads(1)
    monkeypatch.setattr(task_module, "load", lambda name, data_dir: splits)

    def make(seed: int = 0, preset: str = "tiny", **overrides: Any) -> SpacingTask:
        config = build_config(get_family("spacing_mdn"), overrides, preset=preset)
        return SpacingTask(config, seed=seed, device="cpu", data_dir=Path("unused"))

    return make
