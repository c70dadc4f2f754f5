"""Tasks over the smallest corpus, as bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import alone
from tests.trainables.equilibrium.configs import tiny
from trainables.equilibrium.task import EquilibriumTask
from trainables.text.source import TEXT_AND_BYTES

MakeTask = Callable[..., EquilibriumTask]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bytes_dir(data_dir: Path) -> Path:
    """``data_dir`` with corpus pydoc in it, a token a byte."""
    with alone(data_dir):
        TEXT_AND_BYTES.prepare("pydoc-257", data_dir)
    return data_dir


@pytest.fixture
def make_task(bytes_dir: Path) -> MakeTask:
    """Builds a task from preset ``tiny`` with overrides."""
    return lambda seed=0, **fields: EquilibriumTask(tiny(**fields), seed=seed, device="cpu", data_dir=bytes_dir)
