"""Rollouts with known answers: predictors whose own future is a closed form."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch

from analysis.spacing_mdn import rollout_drift
from analysis.spacing_mdn.rollout_drift import chosen_windows, rollout
from tests.analysis.conftest import MakeSubject, MakeTask
from tests.analysis.spacing_mdn.slot_models import stirred
from tests.analysis.spacing_mdn.test_slot_dependence import NO_SLOTS
from trainables.spacing_mdn.data.spacings import SpacingData
from trainables.spacing_mdn.predict import inputs_of, min_past, predict_next
from trainables.spacing_mdn.task import SpacingTask

CASES: list[dict[str, Any]] = [
    {},
    {**NO_SLOTS},
    {"ar_features": 3, "height_input": True, "block_norm": True},
    {**NO_SLOTS, "ar_features": 5},
    {"query_cuts": 2, "height_input": True},
]


def multiplies(make_task: MakeTask, intercept: float, factor: float) -> SpacingTask:
    """A model that predicts intercept + factor times the last spacing: all it has is its linear predictor."""
    task = make_task(**NO_SLOTS, ar_features=1)
    with torch.no_grad():
        task.model.head.weight.zero_()
        task.model.linear_predictor.copy_(torch.tensor([intercept, factor]))
    return task


@pytest.mark.parametrize("fields", CASES)
def test_every_step_is_that_of_a_model_used_alone(
    fields: dict[str, Any], make_task: MakeTask, make_subject: MakeSubject, splits: SpacingData
) -> None:
    subject = make_subject(stirred(make_task(**fields)), number=3)
    sample, model = subject.sample, subject.task.model
    predicted = rollout(sample, np.arange(3), 4)
    for window in range(3):
        begin = int(sample.starts[window]) - subject.config.ar_features
        series = torch.from_numpy(splits.val.spacings[begin : begin + min_past(model)].copy())
        for step in range(4):
            alone = predict_next(model, series, float(sample.log_height[window]))
            mean = (alone.log_pi.exp() * alone.mu).sum(-1)[0, -1]
            assert predicted[window, step] == pytest.approx(mean.item(), abs=1e-4)
            series = torch.cat((series, torch.tensor([predicted[window, step]])))


def test_inputs_of_sampled_windows_are_the_datas_own(make_task: MakeTask, make_subject: MakeSubject) -> None:
    subject = make_subject(make_task(**NO_SLOTS, ar_features=4), number=5)
    spacings = subject.task.part("val").spacings
    begin = subject.sample.starts.numpy() - 4
    series = torch.from_numpy(spacings[begin[:, None] + np.arange(36)])
    assert torch.allclose(
        inputs_of(subject.task.model, series, subject.sample.log_height), subject.sample.inputs, atol=1e-5
    )


def test_a_model_that_amplifies_runs_away(make_task: MakeTask, make_subject: MakeSubject) -> None:
    subject = make_subject(multiplies(make_task, 0.0, 1.03))
    finding = rollout_drift.rollout_drift(subject)
    assert finding.verdict == "fail"
    assert finding.values["slope"].low > 0.5
    assert "runs away" in finding.summary
    chosen = chosen_windows(subject.sample)
    assert finding.values["windows"] == len(chosen) == 16
    spacings, at = subject.task.part("val").spacings, subject.sample.starts.numpy()[chosen] + 32
    for horizon in (1, 10, 50, 200):
        expected = np.abs(1.03**horizon * spacings[at - 1] - spacings[at + horizon - 1]).mean()
        assert finding.values[f"error_{horizon}"].value == pytest.approx(expected, rel=1e-4)


def test_a_model_that_settles_passes(make_task: MakeTask, make_subject: MakeSubject) -> None:
    finding = rollout_drift.rollout_drift(make_subject(multiplies(make_task, 1.4, -0.4)))
    assert finding.verdict == "pass"
    assert abs(finding.values["slope"].value) < 0.25
    assert finding.values["error_200"].value == pytest.approx(finding.values["error_constant"], rel=0.5)
    assert rollout_drift.rollout_drift(make_subject(multiplies(make_task, 1.4, -0.4))) == finding


def test_a_model_that_overflows_fails_in_words(make_task: MakeTask, make_subject: MakeSubject) -> None:
    finding = rollout_drift.rollout_drift(make_subject(multiplies(make_task, 0.0, 10.0)))
    assert finding.verdict == "fail"
    assert re.search(r"leaves finite numbers after [1-4]\d steps", finding.summary)
    assert "error_10" in finding.values
    assert "error_50" not in finding.values
    assert all(math.isfinite(y) for y in finding.plots[0].series[0].y)


def test_windows_whose_continuation_leaves_the_split_are_left_out(
    make_task: MakeTask, make_subject: MakeSubject
) -> None:
    subject = make_subject(make_task(**NO_SLOTS), number=1000)
    last = subject.sample.starts.numpy()[chosen_windows(subject.sample)].max() + 32 + 200
    assert last == 1024
    short = make_subject(make_task(**NO_SLOTS, context=900), number=20)
    finding = rollout_drift.rollout_drift(short)
    assert (finding.verdict, "followed by 200" in finding.summary) == ("no_evidence", True)


def test_large_models_roll_out_fewer_windows(
    make_task: MakeTask, make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = make_subject(make_task(**NO_SLOTS), number=500).sample
    monkeypatch.setattr(rollout_drift, "_CPU_BUDGET", 1.0)
    assert len(chosen_windows(sample)) == 8


def test_a_model_of_nan_is_no_evidence(make_task: MakeTask, make_subject: MakeSubject) -> None:
    task = make_task()
    with torch.no_grad():
        task.model.positions.fill_(math.nan)
    finding = rollout_drift.rollout_drift(make_subject(task, number=12))
    assert (finding.verdict, "not finite" in finding.summary) == ("no_evidence", True)
