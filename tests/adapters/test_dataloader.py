"""The loader that resumes in mid-epoch: every example once an epoch, and the same batches from any place."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

from trainables.training.seeding import derive_seed
from tune_rh.adapters.dataloader import StatefulLoader, stateful
from tune_rh.adapters.factory import seeded


class Noisy(torch.utils.data.Dataset[Any]):
    """Examples that are drawn anew each time."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return index, torch.rand(()).item(), random.random(), np.random.rand()  # noqa: NPY002


def take(loader: Any, num: int) -> list[Any]:
    """The next batches, in plain values."""
    return [[part.tolist() for part in next(loader)] for _ in range(num)]


def test_an_epoch_has_every_example_once_and_the_next_another_order() -> None:
    loader = StatefulLoader(Noisy(), 4, seed=3)
    epochs = [[i for batch in take(loader, 3) for i in batch[0]] for _ in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]
    assert (loader.epoch, loader.position, loader.num_batches) == (2, 0, 3)
    dropping = StatefulLoader(Noisy(), 4, seed=3, drop_last=True, shuffle=False)
    assert [batch[0] for batch in take(dropping, 3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3]]


@pytest.mark.parametrize("at", range(8))
def test_it_goes_on_in_the_middle_of_an_epoch(at: int) -> None:
    whole = take(StatefulLoader(Noisy(), 4, seed=3), 12)
    first = StatefulLoader(Noisy(), 4, seed=3)
    take(first, at)
    other = StatefulLoader(Noisy(), 4, seed=5)
    take(other, 2)
    other.load_state_dict(first.state_dict())
    assert take(other, 12 - at) == whole[at:]


def test_workers_load_the_same_and_what_they_are_ahead_is_not_counted() -> None:
    alone = take(StatefulLoader(Noisy(), 4, seed=3), 4)
    with_workers = StatefulLoader(Noisy(), 4, seed=3, num_workers=2)
    assert take(with_workers, 2) == alone[:2]
    assert with_workers.state_dict() == {"seed": 3, "epoch": 0, "position": 2}
    assert take(with_workers, 2) == alone[2:]


def test_global_generators_are_left_as_they_were() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    take(StatefulLoader(Noisy(), 4, seed=3), 4)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


class Stream(IterableDataset[int]):
    """Without a length or a place."""

    def __iter__(self) -> Any:
        return iter(range(10))


def test_a_torch_loader_becomes_one_and_what_has_no_place_is_refused() -> None:
    rows = TensorDataset(torch.arange(10))
    for shuffle in (True, False):
        loader = stateful(DataLoader(rows, 4, shuffle=shuffle), seed=3)
        assert take(loader, 4) == take(StatefulLoader(rows, 4, seed=3, shuffle=shuffle), 4)
    with pytest.raises(ValueError, match="Stream: an iterable dataset keeps no place"):
        stateful(DataLoader(Stream(), 4), seed=3)
    weighted = WeightedRandomSampler([1.0] * 10, 10)
    with pytest.raises(ValueError, match="WeightedRandomSampler: a sampler of your own keeps no place"):
        stateful(DataLoader(rows, 4, sampler=weighted), seed=3)
    with pytest.raises(ValueError, match="list: is no DataLoader"):
        stateful([1, 2], seed=3)
    with pytest.raises(ValueError, match="batch_size = 11: the dataset has 10 examples"):
        StatefulLoader(Noisy(), 11, seed=3, drop_last=True)


def test_torchdatas_own_loader_goes_on_too() -> None:
    torchdata = pytest.importorskip("torchdata.stateful_dataloader", reason="needs torchdata")

    def made() -> Any:
        return stateful(torchdata.StatefulDataLoader(TensorDataset(torch.arange(10)), 4), seed=3)

    whole, first, other = take(made(), 8), made(), made()
    take(first, 4)
    other.load_state_dict(first.state_dict())
    assert take(other, 4) == whole[4:]


def test_seeding_an_example_formats_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.manual_seed` does, for each kind of device that is not there: a millisecond, and more in deep calls."""

    def formatted(*_: object) -> list[str]:
        raise AssertionError("a traceback was formatted")

    monkeypatch.setattr("traceback.format_stack", formatted)
    with seeded(1, "0"):
        first = torch.rand(3)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(1, "0"))
        assert torch.equal(torch.rand(3), first)
