"""Sampled windows are the same for every model, and score as the evaluation does."""

from __future__ import annotations

import pytest
import torch

from tests.trainables.spacing_mdn.conftest import MakeTask
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.sample import draw
from trainables.spacing_mdn.slots import SlotControl


def test_the_sample_depends_on_nothing_but_its_seed(make_task: MakeTask) -> None:
    one, two = draw(make_task()), draw(make_task(seed=5))
    assert torch.equal(one.starts, two.starts)
    assert torch.equal(one.inputs, two.inputs)
    assert not torch.equal(one.starts, draw(make_task(), seed=1).starts)
    assert one.starts.diff().min() > 0
    assert one.split == "val"
    assert len(draw(make_task(), number=10**9).starts) == len(one.task.part("val").spacings) - 32


def test_windows_are_those_of_the_split_and_scores_those_of_evaluation(make_task: MakeTask) -> None:
    made = make_task(eval_slot_id_mode="fixed", eval_stride=1)
    sample = draw(made, number=40)
    first = int(sample.starts[0])
    spacings = made.part("val").spacings
    assert sample.inputs[0, :, 0].numpy() == pytest.approx(spacings[first : first + 32] - 1, abs=1e-6)
    assert sample.targets[0, -1].item() == pytest.approx(spacings[first + 32])
    assert sample.log_height[0].item() == made.part("val").log_height[(first + 32) // BLOCK]
    whole = made.target_nll("val").reshape(-1, sample.targets.shape[1])[:, -1]
    assert torch.allclose(sample.nll(sample.predict()), whole[sample.starts - made.windows("val").first], atol=1e-5)


def test_models_that_predict_everywhere_are_scored_on_their_tail(make_task: MakeTask) -> None:
    fields = {"layout": "none", "n_slots": 0, "aux_mode": "off", "slot_id_mode": "fixed", "slot_dropout": 0.0}
    sample = draw(make_task(**fields, eval_slot_id_mode="fixed", eval_tail=8), number=12)
    assert sample.targets.shape == (12, 32)
    assert sample.nll(sample.predict()).shape == (12,)


def test_slots_can_be_set(make_task: MakeTask) -> None:
    sample = draw(make_task(), number=20)
    before = sample.nll(sample.predict())
    assert torch.equal(sample.nll(sample.predict()), before)
    keep = torch.tensor([[0.0, 1.0]])
    assert not torch.equal(sample.nll(sample.predict(SlotControl(keep=keep))), before)
