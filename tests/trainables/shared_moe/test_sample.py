"""Sampled sequences are the same for every model of a corpus and a context, and lie evenly in the split."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.trainables.shared_moe.conftest import MakeTask
from trainables.language.sample import NUM_SEQUENCES, draw


def test_the_sample_is_the_same_for_every_model(make_task: MakeTask) -> None:
    one, two = draw(make_task()), draw(make_task(seed=5, width=32, num_experts=8, eval_sequences=3))
    assert torch.equal(one.starts, two.starts)
    assert torch.equal(one.sequences, two.sequences)
    assert one.sequences.shape == (NUM_SEQUENCES, 17)
    assert one.split == "val"


def test_sequences_are_those_of_the_split_without_overlap(make_task: MakeTask) -> None:
    sample = draw(make_task(), number=10)
    tokens = np.asarray(sample.task.text("val").tokens)
    for start, sequence in zip(sample.starts.tolist(), sample.sequences, strict=True):
        assert sequence.tolist() == tokens[start : start + 17].tolist()
    gaps = sample.starts.diff()
    assert gaps.min() >= 16
    assert gaps.max() - gaps.min() <= 16
    assert sample.starts[-1] + 16 < len(tokens)
    test = draw(sample.task, "test", number=10)
    assert test.split == "test"
    assert not torch.equal(test.sequences, sample.sequences)


def test_a_short_split_gives_all_that_it_has(make_task: MakeTask) -> None:
    sample = draw(make_task(), number=10**9)
    assert len(sample.starts) == (len(sample.task.text("val").tokens) - 1) // 16
    assert (sample.starts.diff() == 16).all()


def test_fewer_of_them_are_spread_over_the_same(make_task: MakeTask) -> None:
    sample = draw(make_task(), number=10)
    some = sample.at_most(4)
    assert some.starts.tolist() == sample.starts[[0, 2, 5, 7]].tolist()
    assert torch.equal(some.sequences, sample.sequences[[0, 2, 5, 7]])
    assert sample.at_most(10) is sample
    assert sample.at_most(11) is sample
    with pytest.raises(ValueError, match="number = 0; allowed is 1 or more"):
        sample.at_most(0)
