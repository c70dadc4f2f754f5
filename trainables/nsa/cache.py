"""What attention keeps of the tokens it has seen, so that the next ones need not see them again.

Each layer has a cache of its own. A cache takes any number of tokens at a time, and forgets nothing that a later query
may look at; it is for inference, and no gradient reaches what it holds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from trainables.nsa.branches import KeyValues, Memory
from trainables.nsa.sparsity import Sparsity

Compress = Callable[[KeyValues, int], KeyValues]
"""Raw keys and values from the start of a block on, and that block's number: keys and values of whole blocks."""


class Overfull(ValueError):
    """More tokens than the cache was made for."""


class DenseCache:
    """Keys and values of dense attention."""

    def __init__(self, shape: tuple[int, int], dim: int, capacity: int, *, like: Tensor) -> None:
        self.length = 0
        self.capacity = capacity
        self._kept = like.new_zeros(2, *shape, capacity, dim)

    def extend(self, new: KeyValues) -> KeyValues:
        """Take the next tokens in; returns all keys and values so far."""
        start, self.length = self.length, _grown(self, new[0])
        self._kept[:, :, :, start : self.length] = torch.stack(new)
        keys, values = self._kept[:, :, :, : self.length]
        return keys, values


class SparseCache:
    """Keys and values of the three branches: whole blocks, a ring of the window, and compressed blocks.

    Args:
        shape: (batch, groups).
        dim: of a head.
        capacity: tokens at most.
        sparsity: sizes.
        like: a tensor of the type and on the device that are wanted.
    """

    def __init__(self, shape: tuple[int, int], dim: int, capacity: int, sparsity: Sparsity, *, like: Tensor) -> None:
        self.length = 0
        self.capacity = capacity
        self._sizes = sparsity
        whole = sparsity.num_blocks(capacity) * sparsity.select_block
        self._selected = like.new_zeros(2, *shape, whole, dim)
        self._ring = like.new_zeros(2, *shape, sparsity.window, dim)
        self._compressed = like.new_zeros(2, *shape, sparsity.num_compressed(capacity), dim)
        self._tail = like.new_zeros(2, *shape, 0, dim)  # raw, from the start of the first block that has not ended

    def extend(self, raw: KeyValues, selected: KeyValues, window: KeyValues, compress: Compress) -> Memory:
        """Take the next tokens in; returns all that their queries may look at."""
        start, self.length = self.length, _grown(self, raw[0])
        self._selected[:, :, :, start : self.length] = torch.stack(selected)
        whole = self._sizes.num_blocks(self.length) * self._sizes.select_block
        self._compress(start, torch.stack(raw), compress)
        compressed = self._compressed[:, :, :, : self._sizes.num_compressed(self.length)]
        return Memory(
            _pair(compressed), _pair(self._selected[:, :, :, :whole]), *self._turn(start, torch.stack(window))
        )

    def _compress(self, start: int, raw: Tensor, compress: Compress) -> None:
        """Compress the blocks that have ended, and keep the raw tokens of those that have not."""
        done, until = (self._sizes.num_compressed(length) for length in (start, self.length))
        tail = torch.cat([self._tail, raw], dim=3)
        if until > done:
            self._compressed[:, :, :, done:until] = torch.stack(compress(_pair(tail), done))
        self._tail = tail[:, :, :, (until - done) * self._sizes.stride :].clone()

    def _turn(self, start: int, new: Tensor) -> tuple[KeyValues, int, Tensor | None]:
        """Window keys for the new queries and where they are; afterwards the ring holds the newest ``window`` tokens.

        Position p lies in slot p mod window. Several queries look back to different tokens, of which the ring will
        have lost the oldest once all the new ones are in it: they get what it holds, in order, and the new ones.
        """
        size, time = self._sizes.window, new.shape[3]
        slots = torch.arange(size, device=new.device)
        if time == 1:
            self._ring[:, :, :, start % size] = new[:, :, :, 0]
            return _pair(self._ring), 0, start - (start - slots) % size
        before = min(size - 1, start)
        held = self._ring[:, :, :, (start - before + slots[:before]) % size]
        kept = torch.arange(max(0, time - size), time, device=new.device)
        self._ring[:, :, :, (start + kept) % size] = new[:, :, :, kept]
        return _pair(torch.cat([held, new], dim=3)), start - before, None


def _grown(cache: DenseCache | SparseCache, new: Float[Tensor, "batch group time dim"]) -> int:
    length = cache.length + new.shape[2]
    if length > cache.capacity:
        raise Overfull(f"{length} tokens: the cache holds {cache.capacity}")
    return length


def _pair(stacked: Tensor) -> KeyValues:
    keys, values = stacked
    return keys, values
