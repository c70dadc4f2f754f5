"""The laws of a `TrainTask`, on every mechanism that keeps state, and the windows of evaluation."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainables.spacing_mdn.conftest import MakeTask
from trainables.registry import get_family
from trainables.spacing_mdn.config import SpacingConfig
from trainables.spacing_mdn.data.spacings import Part, SpacingData
from trainables.spacing_mdn.task import SpacingTask
from trainables.spacing_mdn.windows import Channels, Windows

NO_SLOTS: dict[str, Any] = {
    "layout": "none",
    "n_slots": 0,
    "slot_id_mode": "fixed",
    "eval_slot_id_mode": "fixed",
    "slot_dropout": 0.0,
    "aux_mode": "off",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "none": {**NO_SLOTS, "ar_features": 5, "height_input": True},
    "prefix": {"layout": "prefix", "aux_mode": "off"},
    "diagonal": {"aux_mode": "diagonal", "ortho_weight": 0.1, "query_cuts": 3, "perm_warmup_steps": 4},
    "block_norm": {"block_norm": True, "eval_perm_average": 3, "schedule": "wsd"},
}


def steps(task: SpacingTask, number: int) -> list[dict[str, float]]:
    return [dict(task.step()) for _ in range(number)]


def equal(one: SpacingTask, other: SpacingTask) -> bool:
    others = other.model.state_dict()
    return all(torch.equal(value, others[name]) for name, value in one.model.state_dict().items())


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_saved_task_goes_on_bit_for_bit_in_one_of_another_seed(variant: str, make_task: MakeTask) -> None:
    task, other = make_task(seed=0, **VARIANTS[variant]), make_task(seed=1, **VARIANTS[variant])
    steps(task, 3)
    file = io.BytesIO()
    torch.save(task.state_dict(), file)
    file.seek(0)
    steps(other, 2)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert steps(task, 4) == steps(other, 4)
    assert equal(task, other)
    assert task.evaluate() == other.evaluate()


def test_a_state_is_a_copy(make_task: MakeTask) -> None:
    task, other = make_task(seed=0), make_task(seed=1)
    steps(task, 2)
    state = task.state_dict()
    expected = steps(task, 3)
    other.load_state_dict(state)
    assert steps(other, 3) == expected


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_the_same_seed_twice_is_equal_and_another_is_not(variant: str, make_task: MakeTask) -> None:
    first, again, other = (make_task(seed=seed, **VARIANTS[variant]) for seed in (3, 3, 4))
    assert steps(first, 3) == steps(again, 3)
    assert equal(first, again)
    assert not equal(first, other)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_evaluation_repeats_and_leaves_training_untouched(variant: str, make_task: MakeTask) -> None:
    task, undisturbed = make_task(**VARIANTS[variant]), make_task(**VARIANTS[variant])
    steps(task, 2), steps(undisturbed, 2)
    assert task.evaluate() == task.evaluate()
    assert task.evaluate("test") != task.evaluate("val")
    assert steps(task, 2) == steps(undisturbed, 2)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_declared_metric_is_reported(variant: str, make_task: MakeTask) -> None:
    task = make_task(**VARIANTS[variant])
    report = {**task.step(), **task.evaluate()}
    assert {metric.name for metric in get_family("spacing_mdn").metrics} <= report.keys()
    assert all(math.isfinite(value) and type(value) is float for value in report.values())
    assert ("train_aux" in report) == (task.config.aux_mode != "off")
    assert ("train_ortho" in report) == (task.config.ortho_weight > 0)
    assert ("val_nll_perm_std" in report) == (task.config.eval_perm_average > 0)
    assert {"test_nll", "test_nll_se"} <= task.evaluate("test").keys()


def test_the_model_is_the_states(make_task: MakeTask) -> None:
    task = make_task()
    state = task.state_dict()["model"]
    assert state.keys() == task.model.state_dict().keys()
    assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_nobody_elses_random_numbers_are_touched(make_task: MakeTask) -> None:
    before = torch.get_rng_state()
    task = make_task()
    steps(task, 2)
    task.evaluate()
    assert torch.equal(torch.get_rng_state(), before)


def test_accumulation_sees_the_same_windows(make_task: MakeTask) -> None:
    quiet = {"dropout": 0.0, "slot_dropout": 0.0, "batch_size": 8}
    whole, parts = make_task(accumulation=1, **quiet), make_task(accumulation=4, **quiet)
    for one, four in zip(steps(whole, 3), steps(parts, 3), strict=True):
        assert four == pytest.approx(one, rel=1e-4)


def test_training_lowers_the_loss(make_task: MakeTask) -> None:
    task = make_task(**VARIANTS["none"], lr=1e-2, warmup=0)
    before = task.evaluate()["val_nll"]
    steps(task, 60)
    assert task.evaluate()["val_nll"] < before - 0.3


def test_warm_up_of_permutations_uses_fixed_ids(make_task: MakeTask) -> None:
    task = make_task(perm_warmup_steps=2, slot_dropout=0.0, n_slots=4, accumulation=1)
    orders = []
    for _ in range(5):
        orders.append(task._training_controls(1)[0].order)
        task.step()
    assert [order is None for order in orders] == [True, True, False, False, False]
    assert all(sorted(order.tolist()) == [0, 1, 2, 3] for order in orders if order is not None)


def test_eval_modes_differ_where_ids_matter(make_task: MakeTask) -> None:
    scores = []
    for mode in ("fixed", "off", "permute_per_batch"):
        task = make_task(eval_slot_id_mode=mode, n_slots=4)
        with torch.no_grad():
            assert task.model.slots is not None
            task.model.slots.ids.mul_(100.0)
            task.model.readout.weight.mul_(100.0)  # type: ignore[union-attr]
        scores.append(task.evaluate()["val_nll"])
    assert len(set(scores)) == 3


def test_a_non_finite_model_is_data(make_task: MakeTask) -> None:
    task = make_task()
    with torch.no_grad():
        task.model.head.weight.fill_(float("nan"))
    assert math.isnan(task.step()["train_loss"])
    assert math.isnan(task.evaluate()["val_nll"])


def ramp_part(num_blocks: int) -> Part:
    """Spacings that count up, so that a value tells its place."""
    return Part(np.arange(num_blocks * 256, dtype=np.float64), np.zeros(num_blocks))


def windows(config: SpacingConfig, part: Part, *, lead: int = 0) -> Windows:
    channels = Channels.fit(config, Part(np.random.default_rng(0).random(1024), np.zeros(4)))
    assert channels.lead() == lead
    return Windows(config, part, channels, torch.device("cpu"))


def test_evaluated_targets_count_each_spacing_with_a_whole_past_once() -> None:
    config = SpacingConfig(context=100, eval_tail=10, ar_features=7)
    fixed = windows(config, ramp_part(4), lead=7)
    targets = fixed.targets(fixed.evaluated_starts())[:, -config.eval_tail :].flatten().long().tolist()
    # The first has the features' past (7), then a window in which 100 - 10 positions only look on.
    assert targets == list(range(7 + 91, 7 + 91 + len(targets)))
    assert 1024 - targets[-1] <= config.eval_tail


def test_evaluated_targets_of_slots_lie_at_the_stride_and_at_the_cuts() -> None:
    config = SpacingConfig(layout="postfix", n_slots=2, context=64, query_cuts=2, eval_stride=50)
    fixed = windows(config, ramp_part(2))
    targets = fixed.targets(fixed.evaluated_starts()).long().tolist()
    assert targets == [[start + 48, start + 64] for start in range(0, 512 - 64, 50)]


def test_training_windows_reach_both_ends_and_no_further() -> None:
    config = SpacingConfig(context=250, eval_tail=10)
    cut = windows(config, ramp_part(1))
    starts = cut.starts(300, torch.Generator().manual_seed(0))
    assert set(starts.tolist()) == set(range(256 - 250))
    assert int(cut.targets(starts).max()) == 255


def test_a_window_longer_than_its_split_is_refused(splits: SpacingData) -> None:
    with pytest.raises(ValueError, match=r"context = 2048: .* allowed is at most 1023"):
        windows(SpacingConfig(context=2048), splits.val)


def test_no_channel_knows_the_future(splits: SpacingData) -> None:
    config = SpacingConfig(ar_features=6, height_input=True)
    channels = Channels.fit(config, splits.train)
    changed = splits.val.spacings.copy()
    changed[500:] += 0.3
    before, after = channels.of(splits.val), channels.of(Part(changed, splits.val.log_height))
    assert np.array_equal(before[:500], after[:500])
    assert not np.array_equal(before[500], after[500])


def test_channels_are_what_they_say(splits: SpacingData) -> None:
    config = SpacingConfig(ar_features=6, height_input=True)
    channels = Channels.fit(config, splits.train)
    table, x = channels.of(splits.val).astype(np.float64), splits.val.spacings
    assert channels.ar is not None
    place = 300
    predicted = channels.ar.predict(x[place - 6 : place + 1])[0]  # of x[place]
    following = channels.ar.predict(x[place - 5 : place + 2])[0]
    known = np.round(splits.train.log_height, 3)
    height = (round(splits.val.log_height[1], 3) - known.mean()) / known.std()
    expected = [x[place] - 1.0, 2.0 * (x[place] - predicted), following - 1.0, height]
    assert table[place].tolist() == pytest.approx(expected, abs=1e-6)
    assert np.isfinite(table).all()


def test_data_that_is_missing_is_said_so(tmp_path: Path) -> None:
    from trainables.errors import DataMissing

    with pytest.raises(DataMissing):
        SpacingTask(SpacingConfig(), seed=0, device="cpu", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("decays", "spared"),
    [("matrices", {"positions", "bias", "norm.weight", "slots", "readout"}), ("all", set[str]())],
)
def test_weight_decay_holds_for_what_the_config_says(decays: str, spared: set[str], make_task: MakeTask) -> None:
    task = make_task(decays=decays, head_bias=True, readout="weights", memory_lr_mult=0.25, weight_decay=0.5)
    groups = {
        id(parameter): (group["weight_decay"], group["lr_scale"])
        for group in task._optim._optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(groups) == len(list(task.model.parameters()))
    for name, parameter in task.model.named_parameters():
        exempt = any(part in name for part in spared)
        assert groups[id(parameter)] == (0.0 if exempt else 0.5, 0.25 if name.startswith("slots.") else 1.0), name
