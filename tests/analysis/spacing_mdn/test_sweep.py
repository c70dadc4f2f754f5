"""A sweep holds what the model says of each target, from the bottom of the split to its top."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.spacing_mdn import sweep as module
from analysis.spacing_mdn.sweep import RUNS, sweep
from tests.analysis.conftest import MakeTask
from tests.analysis.spacing_mdn.set_by_hand import PLAIN
from trainables.spacing_mdn.sample import draw


def test_every_target_of_a_small_model_in_order(make_task: MakeTask) -> None:
    sample = draw(make_task(), number=40)
    found = sweep(sample)
    spacings = sample.task.part("val").spacings
    assert found.positions.tolist() == list(range(32, len(spacings)))
    assert np.array_equal(found.targets, spacings[found.positions])
    assert np.array_equal(np.unique(found.run), np.arange(RUNS))
    assert (np.diff(found.run) >= 0).all()
    same = torch.from_numpy(found.nll)[sample.starts]
    assert torch.allclose(sample.nll(sample.predict()), same, atol=1e-5)
    assert found.finite


def test_without_slots_positions_follow_one_another(make_task: MakeTask) -> None:
    sample = draw(make_task(**PLAIN, eval_tail=8), number=4)
    found = sweep(sample)
    assert (np.diff(found.positions) == 1).all()
    assert found.positions[0] == 32 - 8 + 1
    windows = sample.task.windows("val")
    start = windows.first + 8 * 5
    window = sample.task.predict(windows.inputs(torch.tensor([start])), sample.setting)
    index = int(np.flatnonzero(found.positions == start + 32)[0])
    assert found.mu[index] == pytest.approx(window.mu[0, -1].numpy(), abs=1e-5)
    assert found.nll.mean() == pytest.approx(sample.task.target_nll("val").mean().item(), abs=1e-6)


def test_the_mean_is_that_of_the_mixture(make_task: MakeTask) -> None:
    sample = draw(make_task())
    found = sweep(sample)
    one = sample.task.predict(sample.task.windows("val").inputs(torch.tensor([100])), sample.setting)
    assert found.mean[100] == pytest.approx((one.log_pi.exp() * one.mu).sum().item(), abs=1e-5)


def test_a_dear_model_gets_stretches_from_bottom_to_top(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CPU_BUDGET", 0.0)
    monkeypatch.setattr(module, "_MIN_WINDOWS", 80)
    found = sweep(draw(make_task()))
    assert len(found.targets) == 80
    for run in range(RUNS):
        positions = found.positions[found.run == run]
        assert np.array_equal(positions, positions[0] + np.arange(10))
    assert np.diff(found.positions).max() > 100
    assert found.positions[0] > 32 + 40
    assert found.positions[-1] < 4 * 256 - 40


def test_kept_until_the_weights_change(make_task: MakeTask) -> None:
    sample = draw(make_task())
    first = sweep(sample)
    assert sweep(sample) is first
    sample.task.model.head.weight.data.mul_(1.5)  # in place, behind autograd's back
    second = sweep(sample)
    assert not np.array_equal(first.nll, second.nll)
    sample.task.model.head.weight.data.fill_(float("nan"))
    assert not sweep(sample).finite
