"""How many bytes autograd keeps for backward passes while something runs: the most at one time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class _Alive:
    """Bytes that are kept now, and the most so far."""

    def __init__(self) -> None:
        self.now = self.most = 0


class _Kept:
    def __init__(self, tensor: Tensor, alive: _Alive) -> None:
        # Detached, or an output that is kept for its own gradient would keep itself.
        self.tensor, self._alive, self._size = tensor.detach(), alive, tensor.untyped_storage().nbytes()
        alive.now += self._size
        alive.most = max(alive.most, alive.now)

    def __del__(self) -> None:
        self._alive.now -= self._size


def most_saved(work: Callable[[], object]) -> int:
    """Bytes of saved tensors at the height of ``work``; a tensor that is saved twice counts twice."""
    alive = _Alive()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Kept(tensor, alive), lambda kept: kept.tensor):
        work()
    return alive.most
