"""Slots that look at, or learn, the same thing and different things by construction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from analysis.diagnose.api import Diagnostic
from analysis.spacing_mdn import attention_profile, gradient_rank
from analysis.spacing_mdn.attention_profile import attention_inputs, slot_attention
from tests.analysis.conftest import MakeSubject, MakeTask
from tests.analysis.spacing_mdn.slot_models import stirred
from tests.analysis.spacing_mdn.test_slot_dependence import NO_SLOTS, ZERO, V, W
from trainables.spacing_mdn.task import SpacingTask


def blank(make_task: MakeTask, contents: list[torch.Tensor], **fields: Any) -> SpacingTask:
    """A task whose weights are 0, but for norms (1) and the slots' contents."""
    task = make_task(slot_dropout=0.0, **fields)
    with torch.no_grad():
        for name, parameter in task.model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        assert task.model.slots is not None
        task.model.slots.content.copy_(torch.stack(contents))
    return task


def look(make_task: MakeTask, contents: list[torch.Tensor]) -> SpacingTask:
    """Positions turn from V, the oldest, to W; a slot looks where its content points."""
    task = blank(make_task, contents, context=64, n_heads=1)
    angle = torch.linspace(0.0, math.pi / 2, 64).unsqueeze(1)
    with torch.no_grad():
        task.model.positions.copy_(angle.cos() * V + angle.sin() * W)
        task.model.blocks[0].qkv.weight[:16] = 4.0 * torch.eye(8).repeat(2, 1)
    return task


def test_slots_that_look_elsewhere_pass_and_those_that_look_alike_fail(
    make_task: MakeTask, make_subject: MakeSubject
) -> None:
    apart = attention_profile.attention_profile(make_subject(look(make_task, [V, W])))
    assert apart.verdict == "pass"
    assert apart.values["centre_min"] < 8
    assert apart.values["centre_max"] > 64 - 1 - 8
    assert apart.values["spread_last"].value == pytest.approx(
        (apart.values["centre_max"] - apart.values["centre_min"]) / 2
    )
    alike = attention_profile.attention_profile(make_subject(look(make_task, [V, V])))
    assert alike.verdict == "fail"
    assert alike.values["spread_last"].value == pytest.approx(0.0, abs=1e-6)
    assert "look at the same places" in alike.summary


def test_attention_without_preference_is_uniform(make_task: MakeTask, make_subject: MakeSubject) -> None:
    centres, profile, on_data = attention_profile.slot_attention(make_subject(blank(make_task, [V, W])).sample)
    assert centres == pytest.approx(np.full_like(centres, 15.5), abs=1e-5)
    assert profile == pytest.approx(np.full((2, 32), 1 / 32))
    assert on_data == pytest.approx(32 / 34)


@pytest.mark.parametrize("fields", [{"depth": 2, "n_slots": 3}, {"depth": 2, "query_cuts": 2}])
def test_weights_are_those_of_the_models_attention(
    fields: dict[str, Any], make_task: MakeTask, make_subject: MakeSubject
) -> None:
    subject = make_subject(stirred(make_task(**fields)), number=4)
    number, model = subject.config.n_slots, subject.task.model
    mixed: list[torch.Tensor] = []
    hooks = [block.out.register_forward_pre_hook(lambda module, args: mixed.append(args[0])) for block in model.blocks]
    normed = attention_inputs(subject.task, subject.sample.inputs, subject.sample.setting)
    for hook in hooks:
        hook.remove()
    for block, part, expected in zip(model.blocks, normed, mixed, strict=True):
        weights = attention_profile.attention_weights(block, part, number)
        value = block.heads(block.qkv(part)[..., 16:]).detach()
        assert torch.allclose((weights @ value).transpose(1, 2).flatten(2), expected[:, -number:], atol=1e-5)


def test_gradients_in_different_directions_pass_and_equal_ones_fail(
    make_task: MakeTask, make_subject: MakeSubject
) -> None:
    # A norm lets no gradient through along the slot's own vector: along V + W, V's slot gets that of W, and W's of V.
    for contents, share, verdict in (([V, W], 1.0, "pass"), ([V, V], 0.5, "fail")):
        task = blank(make_task, contents)
        with torch.no_grad():
            task.model.head.weight[-2:] = V + W
        finding = gradient_rank.gradient_rank(make_subject(task))
        assert finding.values["rank_share"].value == share
        assert finding.values["first_share"] == pytest.approx(1.0 - share / 2 if share == 1.0 else 1.0, abs=1e-3)
        assert finding.verdict == verdict


def test_products_are_of_gradients(make_task: MakeTask, make_subject: MakeSubject) -> None:
    subject = make_subject(stirred(make_task(depth=2)), number=1)
    (products,) = gradient_rank.gradient_products(subject.sample)
    task = subject.task
    task.model.eval()
    prediction = task.model(subject.sample.inputs)
    z = (subject.sample.targets.unsqueeze(-1) - prediction.mu) / prediction.sigma
    density = (prediction.log_pi.exp() * (-0.5 * z**2).exp() / prediction.sigma / math.sqrt(2 * math.pi)).sum()
    (-density.log()).backward()
    gradient = task.model.slots.content.grad.double()
    assert products == pytest.approx((gradient @ gradient.T).numpy(), rel=1e-3)


@pytest.mark.parametrize("asked", [attention_profile.attention_profile, gradient_rank.gradient_rank])
@pytest.mark.parametrize("fields", [NO_SLOTS, {"n_slots": 1}, {"layout": "prefix", "aux_mode": "off"}])
def test_without_slots_to_compare_there_is_no_evidence(
    asked: Diagnostic, fields: dict[str, Any], make_task: MakeTask, make_subject: MakeSubject
) -> None:
    finding = asked(make_subject(make_task(**fields), number=4))
    assert (finding.verdict, finding.summary != "") == ("no_evidence", True)


@pytest.mark.parametrize("asked", [attention_profile.attention_profile, gradient_rank.gradient_rank])
def test_a_model_of_nan_is_no_evidence(asked: Diagnostic, make_task: MakeTask, make_subject: MakeSubject) -> None:
    task = make_task()
    with torch.no_grad():
        task.model.positions.fill_(math.nan)
    finding = asked(make_subject(task, number=4))
    assert (finding.verdict, "not finite" in finding.summary) == ("no_evidence", True)


def test_slots_that_nothing_reads_have_no_gradient(make_task: MakeTask, make_subject: MakeSubject) -> None:
    finding = gradient_rank.gradient_rank(make_subject(blank(make_task, [ZERO, V]), number=4))
    assert (finding.verdict, "No gradient" in finding.summary) == ("no_evidence", True)


def test_a_large_model_is_looked_at_in_small_batches_with_the_same_answer(
    make_task: MakeTask, make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = make_subject(stirred(make_task(depth=2)), number=5).sample
    batches: list[int] = []
    predict = sample.task.predict
    monkeypatch.setattr(sample.task, "predict", lambda x, control: batches.append(len(x)) or predict(x, control))
    at_once = slot_attention(sample)
    monkeypatch.setattr(attention_profile, "_MAX_FLOATS", 1)
    one_by_one = slot_attention(sample)
    assert batches == [5, 1, 1, 1, 1, 1]
    for found, expected in zip(one_by_one, at_once, strict=True):
        assert found == pytest.approx(expected, abs=1e-6)
