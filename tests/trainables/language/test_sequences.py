"""Which tokens training and evaluation see, and in what order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainables.language.sequences import Order, Sequences

CPU = torch.device("cpu")
TOKENS = np.arange(103, dtype=np.uint16)


def test_windows_hold_their_tokens_and_the_one_after() -> None:
    sequences = Sequences(TOKENS, 10)
    assert sequences.num_windows == 10
    rows = sequences.read(torch.tensor([0, 92]), CPU)
    assert rows.tolist() == [list(range(11)), list(range(92, 103))]
    assert rows.dtype == torch.int64


def test_the_last_target_of_a_split_that_just_fits_counts() -> None:
    assert Sequences(TOKENS[:11], 10).num_windows == 1
    assert Sequences(TOKENS[:21], 10).num_windows == 2
    assert Sequences(TOKENS[:20], 10).num_windows == 1


@pytest.mark.parametrize(("number", "starts"), [(10, list(range(0, 100, 10))), (99, list(range(0, 100, 10)))])
def test_spread_takes_all_there_are(number: int, starts: list[int]) -> None:
    assert Sequences(TOKENS, 10).spread(number).tolist() == starts


def test_spread_is_even_and_without_overlap() -> None:
    starts = Sequences(np.arange(1_001, dtype=np.uint16), 10).spread(7)
    gaps = starts.diff()
    assert starts[0] == 0
    assert gaps.min() >= 140
    assert gaps.max() <= 150


def test_an_epoch_has_each_window_once_and_epochs_differ() -> None:
    sequences = Sequences(TOKENS, 10)
    order = Order(sequences, seed=3)
    epochs = [order.take(9) for _ in range(4)]
    for starts in epochs:
        offset = int(starts.min())
        assert 0 <= offset < 10
        assert sorted(starts.tolist()) == [offset + 10 * i for i in range(9)]
        assert sequences.read(starts, CPU).shape == (9, 11)
    assert len({tuple(starts.tolist()) for starts in epochs}) == 4
    # An offset of its own: over epochs every token is at every place of a window.
    assert {int(order.take(9).min()) for _ in range(100)} == set(range(10))


def test_batches_run_over_the_end_of_an_epoch_and_resume_there() -> None:
    sequences = Sequences(TOKENS, 10)
    whole = Order(sequences, seed=3)
    expected = whole.take(30)
    order = Order(sequences, seed=3)
    assert torch.equal(torch.cat([order.take(7) for _ in range(4)]), expected[:28])
    other = Order(sequences, seed=99)
    other.take(5)
    other.load_state_dict(order.state_dict())
    assert torch.equal(other.take(2), expected[28:])


def test_a_split_of_one_window_is_that_window_over_and_over() -> None:
    assert Order(Sequences(TOKENS[:11], 10), seed=0).take(3).tolist() == [0, 0, 0]
