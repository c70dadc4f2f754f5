"""Slots that are run again give what the model itself gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from analysis.spacing_mdn.slot_pass import SlotPass, windows_at_once
from tests.analysis.conftest import MakeSubject, MakeTask
from trainables.spacing_mdn.slots import SlotControl

CASES: list[dict[str, Any]] = [
    {},
    {"depth": 3, "n_slots": 5, "norm_cap": 0.05},
    {"depth": 2, "query_cuts": 3, "ar_features": 3},
    {"depth": 2, "block_norm": True, "ar_features": 3, "height_input": True},
]
CONTROLS = [SlotControl(), SlotControl(order=torch.tensor([1, 0])), SlotControl(ids=False), SlotControl(content=False)]


def stirred(make_task: MakeTask, **fields: Any) -> Any:
    """A task whose weights are large enough that every part matters."""
    task = make_task(**fields)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return task


@pytest.mark.parametrize("fields", CASES)
def test_it_is_the_models_own_last_prediction(
    fields: dict[str, Any], make_task: MakeTask, make_subject: MakeSubject
) -> None:
    subject = make_subject(stirred(make_task, **fields), number=6)
    slots = SlotPass(subject.task, subject.sample.inputs)
    number = subject.config.n_slots
    controls = CONTROLS if number == 2 else [SlotControl(order=torch.arange(number).roll(2)), SlotControl(ids=False)]
    again = slots.predict(torch.stack([slots.slots(control) for control in controls]).unsqueeze(0))
    for index, control in enumerate(controls):
        whole = subject.task.predict(subject.sample.inputs, control)
        for name in ("log_pi", "mu", "sigma", "slots", "readout"):
            expected = getattr(whole, name)[:, -1]
            assert torch.allclose(getattr(again, name)[:, index], expected, atol=1e-5), name
    assert not torch.allclose(again.mu[:, 0], again.mu[:, 1], atol=1e-4)


def test_gradients_are_those_of_the_model(make_task: MakeTask, make_subject: MakeSubject) -> None:
    task = stirred(make_task, depth=2)
    subject = make_subject(task, number=5)
    slots = SlotPass(task, subject.sample.inputs)
    vectors = slots.slots(SlotControl()).expand(5, 1, -1, -1).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(slots.predict(vectors).mu.sum(), vectors)
    task.model.eval()
    task.model(subject.sample.inputs).mu.sum().backward()
    assert torch.allclose(gradient.sum(dim=(0, 1)), task.model.slots.content.grad, rtol=1e-4, atol=1e-5)


def test_layouts_in_which_data_see_slots_are_refused(make_task: MakeTask, make_subject: MakeSubject) -> None:
    subject = make_subject(make_task(layout="prefix", aux_mode="off"), number=2)
    with pytest.raises(ValueError, match="'prefix'"):
        SlotPass(subject.task, subject.sample.inputs)


def test_large_models_are_given_fewer_windows(make_task: MakeTask) -> None:
    config = make_task().config
    assert windows_at_once(config) == 32
    large = config.model_copy(update={"width": 1024, "depth": 24, "context": 4096})
    assert windows_at_once(large) == 1
