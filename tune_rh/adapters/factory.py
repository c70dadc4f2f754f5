"""What adapters share: how a task is made from a user's functions, and random numbers that belong to a step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables.training.seeding import derive_seed


@dataclass(frozen=True)
class Factory:
    """Makes tasks of one kind, as `trainables.api.TaskFactory` says.

    Attributes:
        kind: the class of the tasks.
        source: the user's function or class that they train, which names them.
        options: further arguments of ``kind``.
    """

    kind: Callable[..., Any]
    source: Callable[..., Any]
    options: Mapping[str, Any]

    @property
    def __name__(self) -> str:
        return getattr(self.source, "__name__", type(self.source).__name__).strip("<>")

    def __call__(self, config: Any, *, seed: int, device: str, data_dir: Path) -> Any:
        return self.kind(config, seed=seed, device=device, data_dir=data_dir, **self.options)


@contextmanager
def seeded(seed: int, purpose: str, device: str = "cpu") -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python for the block; afterwards they are as they were.

    What a step draws then depends on its seed and number alone, and no generator's state need be saved.
    """
    value = derive_seed(seed, purpose)
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: for each kind of device that is not there it formats a traceback, and keeps it.
        torch.default_generator.manual_seed(value)
        for there in devices:
            with torch.cuda.device(there):
                torch.cuda.manual_seed(value)
        random.seed(value)
        np.random.seed(value % 2**32)  # noqa: NPY002 - the code that is called draws from it
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


def mean_of(rows: Iterator[tuple[Mapping[str, float], int]]) -> dict[str, float]:
    """The mean of each number over batches, weighted by their sizes."""
    sums: dict[str, float] = {}
    weights: dict[str, int] = {}
    for row, size in rows:
        for name, value in row.items():
            sums[name] = sums.get(name, 0.0) + size * value
            weights[name] = weights.get(name, 0) + size
    return {name: sums[name] / weights[name] for name in sums}


def moved(batch: Any, device: str) -> Any:
    """A batch with its tensors on ``device``, however nested."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: moved(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        made = [moved(value, device) for value in batch]
        return type(batch)(*made) if hasattr(batch, "_fields") else type(batch)(made)
    return batch
