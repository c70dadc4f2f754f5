"""A model alone, from raw spacings, predicts what the task's evaluation sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainables.spacing_mdn.conftest import MakeTask
from trainables.spacing_mdn.data.spacings import SpacingData
from trainables.spacing_mdn.loss import mixture_nll
from trainables.spacing_mdn.model import SpacingModel
from trainables.spacing_mdn.predict import min_past, predict_next

PLAIN: dict[str, Any] = {
    "layout": "none",
    "n_slots": 0,
    "slot_id_mode": "fixed",
    "eval_slot_id_mode": "fixed",
    "slot_dropout": 0.0,
    "aux_mode": "off",
}
POSTFIX = {"slot_id_mode": "fixed", "eval_slot_id_mode": "fixed"}


@pytest.mark.parametrize(
    "overrides", [PLAIN, {**PLAIN, "ar_features": 5}, {**POSTFIX, "ar_features": 3, "block_norm": True}]
)
def test_it_equals_the_evaluation_of_the_same_window(
    overrides: dict[str, Any], make_task: MakeTask, splits: SpacingData
) -> None:
    task = make_task(**overrides, eval_tail=1, eval_stride=1)
    for _ in range(3):
        task.step()
    alone = SpacingModel(task.config)
    alone.load_state_dict(task.state_dict()["model"])
    expected = task.target_nll("val")
    series = torch.from_numpy(splits.val.spacings)
    first = min_past(alone)
    for target in (first, first + 1, first + 100):
        prediction = predict_next(alone, series[:target])
        nll = mixture_nll(prediction, series[target].float().reshape(1, 1).expand(1, prediction.mu.shape[1]))[0, -1]
        assert nll.item() == pytest.approx(expected[target - first].item(), abs=1e-5)


def test_height_is_asked_for_and_used(make_task: MakeTask) -> None:
    model = make_task(**PLAIN, height_input=True).model
    series = torch.ones(min_past(model), dtype=torch.float64)
    with pytest.raises(ValueError, match="log_height"):
        predict_next(model, series)
    low, high = predict_next(model, series, 2.0), predict_next(model, series, 9.0)
    assert not torch.equal(low.mu, high.mu)


def test_too_short_a_past_is_refused(make_task: MakeTask) -> None:
    model = make_task(**PLAIN, ar_features=5).model
    with pytest.raises(ValueError, match=f"n >= {min_past(model)}"):
        predict_next(model, torch.ones(min_past(model) - 1))
