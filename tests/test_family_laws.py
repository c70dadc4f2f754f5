"""The laws of a family and its task, over everything that is registered: a new family gets these by being listed.

Each family has a preset ``tiny`` whose step takes milliseconds.
"""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from trainables.api import TrainTask
from trainables.registry import FAMILIES, build_config, get_family, resolve

MakeTask = Callable[[int], TrainTask]


@pytest.fixture(params=sorted(FAMILIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_task(name: str, data_dir: Path) -> MakeTask:
    family = get_family(name)
    config = build_config(family, preset="tiny")
    resolve(family.data).prepare(config.data, data_dir)
    torch.set_num_threads(1)
    return lambda seed: resolve(family.task)(config, seed=seed, device="cpu", data_dir=data_dir)


def _steps(task: TrainTask, number: int) -> list[dict[str, float]]:
    return [dict(task.step()) for _ in range(number)]


def _weights_equal(one: TrainTask, other: TrainTask) -> bool:
    mine, others = one.model.state_dict(), other.model.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[key], others[key]) for key in mine)


def test_state_of_step_k_continues_bit_for_bit_in_a_task_of_another_seed(make_task: MakeTask) -> None:
    task, other = make_task(1), make_task(2)
    _steps(task, 3)
    file = io.BytesIO()
    torch.save(task.state_dict(), file)
    file.seek(0)
    _steps(other, 1)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert _steps(task, 4) == _steps(other, 4)
    assert _weights_equal(task, other)


def test_the_same_seed_twice_is_equal_and_another_seed_is_not(make_task: MakeTask) -> None:
    assert _steps(make_task(1), 3) == _steps(make_task(1), 3) != _steps(make_task(2), 3)


def test_evaluate_repeats_and_leaves_the_next_step_unchanged(make_task: MakeTask) -> None:
    task, undisturbed = make_task(1), make_task(1)
    _steps(task, 2)
    _steps(undisturbed, 2)
    assert task.evaluate("val") == task.evaluate("val")
    task.evaluate("test")
    assert _steps(task, 2) == _steps(undisturbed, 2)


def test_every_declared_metric_is_reported_and_finite(name: str, make_task: MakeTask) -> None:
    task = make_task(1)
    report = {**task.step(), **task.evaluate("val")}
    for metric in get_family(name).metrics:
        assert math.isfinite(report[metric.rate_of or metric.name]), metric.name


def test_the_model_alone_takes_the_tasks_weights(name: str, make_task: MakeTask) -> None:
    task, family = make_task(1), get_family(name)
    model = resolve(family.model)(build_config(family, preset="tiny"))
    model.load_state_dict(task.state_dict()["model"])


def test_every_preset_is_a_config_and_comes_back_from_its_own_fields(name: str) -> None:
    family = get_family(name)
    for preset in family.presets:
        config = build_config(family, preset=preset)
        assert build_config(family, config.model_dump(mode="json")) == config
        assert config.data in resolve(family.data).names


def test_a_config_is_frozen_strict_and_refuses_unknown_fields(name: str) -> None:
    family = get_family(name)
    config = build_config(family, preset="tiny")
    with pytest.raises(ValidationError):
        config.data = "another"
    for wrong in ({"no_such_field": 1}, {"lr": "0.1"}):
        with pytest.raises(ValidationError):
            build_config(family, wrong, preset="tiny")


def test_the_objective_is_among_the_metrics_and_presets_are_data(name: str) -> None:
    family = get_family(name)
    assert family.objective in family.metrics
    assert "tiny" in family.presets


def test_naming_a_family_loads_nothing_heavy(name: str) -> None:
    code = (
        f"import sys; from trainables.registry import get_family; get_family({name!r}); "
        "print([m for m in ('torch', 'numpy', 'pydantic', 'ray', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
