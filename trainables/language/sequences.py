"""Sequences of tokens out of one packed split: which ones, and in what order.

Training takes sequences that follow one upon the other, each once in an epoch, in an order and from an offset that are
the epoch's own: an epoch leaves out less than two windows at the ends, and over epochs no token is favoured. Where
training stands is the seed and a count.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from trainables.training.seeding import make_generator


class Sequences:
    """Windows of ``context`` tokens of a split, memory-mapped or not, and the token after each of them."""

    def __init__(self, tokens: NDArray[np.unsignedinteger], context: int) -> None:
        self._tokens = tokens
        self.context = context

    @property
    def num_windows(self) -> int:
        """How many there are without overlap."""
        return (len(self._tokens) - 1) // self.context

    def spread(self, number: int) -> Int[Tensor, " windows"]:
        """Starts of at most ``number`` windows without overlap, evenly spread."""
        return evenly(min(number, self.num_windows), self.num_windows) * self.context

    def read(self, starts: Int[Tensor, " batch"], device: torch.device) -> Int[Tensor, "batch time"]:
        """``context`` + 1 tokens from each start: inputs are all but the last, targets all but the first."""
        rows = [self._tokens[start : start + self.context + 1] for start in starts.tolist()]
        return torch.from_numpy(np.stack(rows).astype(np.int64)).to(device, non_blocking=True)


def evenly(number: int, total: int) -> Int[Tensor, " number"]:
    """``number`` indices below ``total``, evenly spread and in order; ``number`` is at most ``total``."""
    return torch.arange(number) * total // number


class Order:
    """Where training stands: the windows of an epoch in the order that seed and epoch make, batch after batch.

    A batch that begins in one epoch may end in the next.
    """

    def __init__(self, sequences: Sequences, seed: int) -> None:
        self._sequences = sequences
        self._seed = seed
        self._taken = 0
        self._epoch = -1
        self._starts = torch.empty(0, dtype=torch.int64)

    def take(self, number: int) -> Int[Tensor, " batch"]:
        """Starts of the next ``number`` windows."""
        per_epoch = self._per_epoch
        starts = []
        for place in range(self._taken, self._taken + number):
            epoch, within = divmod(place, per_epoch)
            if epoch != self._epoch:
                self._epoch, self._starts = epoch, self._draw(epoch)
            starts.append(self._starts[within])
        self._taken += number
        return torch.stack(starts)

    def state_dict(self) -> dict[str, int]:
        """The seed, and how many windows were taken."""
        return {"seed": self._seed, "taken": self._taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from ``state``."""
        self._seed, self._taken, self._epoch = int(state["seed"]), int(state["taken"]), -1

    @property
    def _per_epoch(self) -> int:
        # One fewer than fit, so that every offset leaves room.
        return max(1, self._sequences.num_windows - 1)

    def _draw(self, epoch: int) -> Tensor:
        generator = make_generator(self._seed, f"epoch {epoch}")
        offset = torch.randint(self._sequences.context, (), generator=generator)
        if self._sequences.num_windows == 1:
            offset = torch.zeros((), dtype=torch.int64)
        return torch.randperm(self._per_epoch, generator=generator) * self._sequences.context + offset
