"""Tasks over the smallest corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import alone
from tests.trainables.shared_moe.configs import tiny
from trainables.shared_moe.task import SharedMoETask
from trainables.text.source import SOURCE

MakeTask = Callable[..., SharedMoETask]


@pytest.fixture(scope="session")
def pydoc_dir(data_dir: Path) -> Path:
    """``data_dir`` with corpus pydoc in it."""
    with alone(data_dir):
        SOURCE.prepare("pydoc", data_dir)
    return data_dir


@pytest.fixture
def make_task(pydoc_dir: Path) -> MakeTask:
    """Builds a task from preset ``tiny`` with overrides."""
    torch.set_num_threads(1)
    return lambda seed=0, **fields: SharedMoETask(tiny(**fields), seed=seed, device="cpu", data_dir=pydoc_dir)


def trained(task: SharedMoETask, steps: int) -> list[dict[str, Any]]:
    """Reports of that many steps."""
    return [task.step() for _ in range(steps)]
