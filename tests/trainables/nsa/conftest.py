"""Tasks over the smallest corpus, as bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import alone
from tests.trainables.nsa.configs import tiny
from trainables.nsa.task import NSATask
from trainables.text.source import BYTES

MakeTask = Callable[..., NSATask]


@pytest.fixture(scope="session")
def bytes_dir(data_dir: Path) -> Path:
    """``data_dir`` with corpus pydoc in it, a token a byte."""
    with alone(data_dir):
        BYTES.prepare("pydoc-257", data_dir)
    return data_dir


@pytest.fixture
def make_task(bytes_dir: Path) -> MakeTask:
    """Builds a task from preset ``tiny`` with overrides."""
    torch.set_num_threads(1)
    return lambda seed=0, **fields: NSATask(tiny(**fields), seed=seed, device="cpu", data_dir=bytes_dir)
