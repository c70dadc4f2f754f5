"""Batches without end, epoch after epoch, that go on in the middle of one after a resume.

Written here, since torchdata has had no release since early 2025; its ``StatefulDataLoader`` fits `stateful`.
The order of an epoch depends on the seed and its number alone: the state is three integers, and nothing is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from trainables.training.seeding import derive_seed, make_generator
from tune_rh.adapters.factory import seeded


class StatefulLoader:
    """An endless iterator over the batches of a dataset; ``state_dict`` says where it stands.

    What a dataset draws from torch's, numpy's or Python's global generators, to augment an example, is the same for the
    same seed, epoch and example, whatever ``num_workers`` is and wherever it was interrupted.

    Args:
        dataset: with a length, and an example for each index.
        batch_size: examples in a batch.
        seed: of the order, and of what the dataset draws.
        shuffle: a new order every epoch.
        drop_last: leave out the last batch of an epoch where it is smaller.
        collate: makes a batch of a list of examples (None: as torch does).
        num_workers: processes that load ahead (0: none).
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = False,
        collate: Callable[[list[Any]], Any] | None = None,
        num_workers: int = 0,
    ) -> None:
        if batch_size < 1 or len(dataset) < (batch_size if drop_last else 1):
            raise ValueError(f"batch_size = {batch_size}: the dataset has {len(dataset)} examples, not one batch")
        self._dataset, self._batch_size, self._seed = dataset, batch_size, seed
        self._shuffle, self._drop_last, self._collate, self._num_workers = shuffle, drop_last, collate, num_workers
        self._epoch = self._position = 0
        self._batches: Iterator[Any] | None = None

    @property
    def epoch(self) -> int:
        """The epoch that the next batch is of, from 0."""
        return self._epoch

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(len(self._dataset), self._batch_size)
        return whole + (rest > 0 and not self._drop_last)

    @property
    def position(self) -> int:
        """How many batches of its epoch have gone before the next one."""
        return self._position

    def __iter__(self) -> StatefulLoader:
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            self._batches = iter(self._rest_of_epoch())
        batch = next(self._batches)
        self._position += 1
        if self._position == self.num_batches:
            self._epoch, self._position, self._batches = self._epoch + 1, 0, None
        return batch

    def state_dict(self) -> dict[str, int]:
        """Where it stands: batches that workers have loaded ahead are not counted."""
        return {"seed": self._seed, "epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on there."""
        self._seed, self._epoch, self._position = state["seed"], state["epoch"], state["position"]
        self._batches = None

    def _rest_of_epoch(self) -> DataLoader[Any]:
        order: Sequence[int] = range(len(self._dataset))
        if self._shuffle:
            order = torch.randperm(len(order), generator=make_generator(self._seed, f"epoch {self._epoch}")).tolist()
        size = self._batch_size
        batches = [order[i * size : (i + 1) * size] for i in range(self._position, self.num_batches)]
        seed = derive_seed(self._seed, f"examples of epoch {self._epoch}")
        return DataLoader(
            _Seeded(self._dataset, seed),
            batch_sampler=batches,  # type: ignore[arg-type]
            collate_fn=self._collate,
            num_workers=self._num_workers,
            generator=torch.Generator(),  # or it would draw from the global one
        )


class _Seeded(Dataset[Any]):
    """A dataset whose example i draws from generators that are seeded for it."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self._dataset, self._seed = dataset, seed

    def __getitem__(self, index: int) -> Any:
        with seeded(self._seed, str(index)):
            return self._dataset[index]


def stateful(loader: Any, seed: int) -> Any:
    """What gives the batches of a torch ``DataLoader`` without end, and knows its place.

    Raises:
        ValueError: its dataset or its sampler keeps no place, and it has no ``state_dict`` of its own.
    """
    if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
        return loader if isinstance(loader, StatefulLoader) else _Endless(loader)
    if not isinstance(loader, DataLoader):
        raise ValueError(f"{type(loader).__name__}: is no DataLoader, and has no state_dict and load_state_dict")
    if isinstance(loader.dataset, IterableDataset):
        raise ValueError(
            f"{type(loader.dataset).__name__}: an iterable dataset keeps no place; give a loader with state_dict and "
            "load_state_dict, or a dataset with a length"
        )
    if type(loader.batch_sampler) is not BatchSampler or type(loader.sampler) not in (RandomSampler, SequentialSampler):
        name = type(loader.batch_sampler if type(loader.batch_sampler) is not BatchSampler else loader.sampler).__name__
        raise ValueError(
            f"{name}: a sampler of your own keeps no place; give a loader with state_dict and load_state_dict"
        )
    return StatefulLoader(
        loader.dataset,
        loader.batch_size or 1,
        seed=seed,
        shuffle=type(loader.sampler) is RandomSampler,
        drop_last=loader.drop_last,
        collate=loader.collate_fn,
        num_workers=loader.num_workers,
    )


class _Endless:
    """A loader with a state of its own, such as torchdata's, begun again after each epoch."""

    def __init__(self, loader: Any) -> None:
        self._loader, self.epoch, self.position = loader, 0, 0
        self._batches: Iterator[Any] | None = None

    def __iter__(self) -> _Endless:
        return self

    def __next__(self) -> Any:
        for _ in range(2):
            if self._batches is None:
                self._batches = iter(self._loader)
            try:
                batch = next(self._batches)
            except StopIteration:
                self._batches, self.epoch, self.position = None, self.epoch + 1, 0
            else:
                self.position += 1
                return batch
        raise ValueError(f"{type(self._loader).__name__}: has no batches")

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position, "loader": self._loader.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.position, self._batches = state["epoch"], state["position"], None
        self._loader.load_state_dict(state["loader"])
