"""Shared data gives the numbers of the whole model, setting by setting, and gradients those of the parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainables.spacing_mdn.conftest import MakeTask
from trainables.spacing_mdn import settings
from trainables.spacing_mdn.loss import mixture_nll
from trainables.spacing_mdn.sample import Sample, draw
from trainables.spacing_mdn.settings import affordable, predict_settings, slot_gradients, without
from trainables.spacing_mdn.slots import SlotControl
from trainables.spacing_mdn.task import SpacingTask

PLAIN_LAYOUT = {"n_slots": 3, "context": 16, "eval_tail": 8, "aux_mode": "off", "depth": 3}
CASES: dict[str, dict[str, Any]] = {
    "postfix": {},
    "one layer": {"depth": 1},
    "all inputs": {"ar_features": 2, "height_input": True},
    "block norm": {"block_norm": True, "ar_features": 2},
    "query cuts": {"query_cuts": 3, "ar_features": 2},
    "norm cap": {"norm_cap": 0.2},
    "prefix": {"layout": "prefix"},
}
CONTROLS = (
    SlotControl(),
    SlotControl(order=torch.tensor([2, 0, 1])),
    SlotControl(ids=False),
    SlotControl(content=False),
    SlotControl(keep=torch.tensor([[1.0, 0.0, 1.0]])),
    SlotControl(keep=torch.zeros(1, 3)),
)


def stirred(task: SpacingTask) -> SpacingTask:
    """Weights large enough that every part matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return task


def sample_of(make_task: MakeTask, number: int = 40, **fields: Any) -> Sample:
    return draw(stirred(make_task(**{**PLAIN_LAYOUT, **fields})), number=number)


@pytest.mark.parametrize("case", list(CASES))
def test_every_setting_is_what_the_model_says(case: str, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_TOKENS", 12)  # settings fall into several goes
    sample = sample_of(make_task, **CASES[case])
    for control, prediction in zip(CONTROLS, predict_settings(sample, CONTROLS), strict=True):
        whole = sample.predict(control)
        for name in ("log_pi", "mu", "sigma", "slots", "readout"):
            if getattr(whole, name) is not None:
                torch.testing.assert_close(getattr(prediction, name), getattr(whole, name), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(sample.nll(prediction), sample.nll(whole), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["postfix", "one layer", "block norm", "query cuts"])
def test_gradients_add_up_to_those_of_contents_and_ids(case: str, make_task: MakeTask) -> None:
    sample = sample_of(make_task, number=8, **CASES[case])
    model = sample.task.model.eval()
    assert model.slots is not None
    nll = mixture_nll(model(sample.inputs), sample.targets)[:, -1].sum()
    wanted = torch.autograd.grad(nll, (model.slots.content, model.slots.ids))
    ours = slot_gradients(sample)
    assert ours.shape == (8, 3, sample.task.config.width)
    for gradient in wanted:
        torch.testing.assert_close(ours.sum(dim=0), gradient, rtol=1e-3, atol=1e-4)
    assert ours.sum(dim=-1).abs().max() < 1e-3 * ours.abs().max()


def test_the_model_keeps_its_mode_and_its_weights_are_followed(make_task: MakeTask) -> None:
    sample = sample_of(make_task)
    sample.task.model.train()
    before = predict_settings(sample, [SlotControl()])[0]
    assert sample.task.model.training
    assert torch.equal(predict_settings(sample, [SlotControl()])[0].mu, before.mu)
    with torch.no_grad():
        sample.task.model.embed.weight.mul_(2.0)
    after = predict_settings(sample, [SlotControl()])[0]
    torch.testing.assert_close(after.mu, sample.predict(SlotControl()).mu, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(after.mu, before.mu)


def test_too_much_to_keep_is_computed_again(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = sample_of(make_task, number=70)
    kept = predict_settings(sample, CONTROLS[:2])
    monkeypatch.setattr(settings, "_MAX_KEPT_BYTES", 1)
    other = sample_of(make_task, number=70)
    again = predict_settings(other, CONTROLS[:2])
    assert other not in settings._kept
    assert sample in settings._kept
    assert all(torch.equal(one.mu, two.mu) for one, two in zip(kept, again, strict=True))


def test_many_settings_look_at_fewer_windows_evenly_spread(make_task: MakeTask) -> None:
    sample = sample_of(make_task, number=60)
    few = affordable(sample, 500)  # of three slots each
    assert len(few.starts) == len(few.inputs) == len(few.targets) == len(few.log_height) == 2**16 // 1500
    assert few.starts[[0, -1]].tolist() == sample.starts[[0, -1]].tolist()
    assert affordable(sample, 20) is sample
    assert len(affordable(sample, 10**6).starts) == 32
    assert len(affordable(sample_of(make_task, number=60, layout="prefix"), 20).starts) == 32


def test_slots_are_taken_away_from_the_setting_of_evaluation(make_task: MakeTask) -> None:
    control = without(sample_of(make_task, eval_slot_id_mode="off", content_mode="zeroed"), (0, 2))
    assert control.keep is not None
    assert control.keep.tolist() == [[0.0, 1.0, 0.0]]
    assert (control.ids, control.content) == (False, False)


def test_gradients_need_slots_that_read(make_task: MakeTask) -> None:
    with pytest.raises(ValueError, match="layout = 'prefix'"):
        slot_gradients(sample_of(make_task, layout="prefix"))
