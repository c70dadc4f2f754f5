"""Training and evaluation: what resumes, what is reported, when the estimator changes, what is averaged."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainables.equilibrium.configs import tiny
from tests.trainables.equilibrium.conftest import MakeTask
from trainables.equilibrium import FAMILY
from trainables.equilibrium.estimators import ESTIMATORS
from trainables.equilibrium.layout import group_of
from trainables.equilibrium.model import EquilibriumModel

ALONE: dict[str, Any] = {"navg": 1, "accumulation": 1, "warm_switch_step": 0}
"""One micro-batch a step, with one estimator."""


@pytest.mark.parametrize("fields", [{}, {"estimator": "bptt", "bptt_steps": 4, "ema": None}, {"mode": "nemon"}])
def test_a_saved_task_goes_on_bit_for_bit(make_task: MakeTask, fields: dict[str, Any]) -> None:
    task = make_task(1, **fields)
    task.step()
    other = make_task(2, **fields)
    other.load_state_dict(task.state_dict())
    assert [task.step() for _ in range(3)] == [other.step() for _ in range(3)]
    assert task.evaluate() == other.evaluate()


def test_micro_batches_add_up_to_the_batch(make_task: MakeTask) -> None:
    # To a tolerance: estimates of parts stop where each of them is good enough.
    exact: dict[str, Any] = {"estimator": "implicit", "t2": 40, "t2_tol": 1e-6, "jr_mode": "off", "navg": 1}
    whole, parts = (make_task(0, **exact, warm_switch_step=0, accumulation=number) for number in (1, 4))
    for _ in range(2):
        one, other = whole.step(), parts.step()
        assert one["train_ce"] == pytest.approx(other["train_ce"], abs=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


def test_batches_are_averaged(make_task: MakeTask) -> None:
    exact: dict[str, Any] = {"estimator": "implicit", "t2": 40, "t2_tol": 1e-6, "jr_mode": "off", "accumulation": 1}
    few = make_task(0, **exact, warm_switch_step=0, batch_size=4, navg=2)
    one = make_task(0, **exact, warm_switch_step=0, batch_size=8, navg=1)
    for _ in range(2):
        averaged, whole = few.step(), one.step()
        assert averaged["tokens"] == whole["tokens"]
        assert averaged["train_ce"] == pytest.approx(whole["train_ce"], abs=1e-5)
        assert averaged["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-3)


def test_the_estimator_changes_at_its_step(make_task: MakeTask) -> None:
    fields = {**ALONE, "jr_mode": "off", "spec_rho": None, "resreg": 0.0, "lr": 0.05, "warmup": 1}
    warm = make_task(0, **{**fields, "warm_switch_step": 2, "warm_estimator": "bptt", "bptt_steps": 4})
    assert ["rho" in warm.step() for _ in range(4)] == [False, False, True, True]
    bptt, ours = (
        make_task(0, **fields, estimator="bptt", bptt_steps=4),
        make_task(0, **{**fields, "warm_switch_step": 2, "warm_estimator": "bptt", "bptt_steps": 4}),
    )
    assert [bptt.step()["train_loss"] for _ in range(3)] == [ours.step()["train_loss"] for _ in range(3)]
    assert bptt.step()["train_loss"] != ours.step()["train_loss"]


def test_averaged_weights_are_those_that_are_evaluated(make_task: MakeTask) -> None:
    task = make_task(0, ema=0.5)
    expected = {name: weight.detach().clone() for name, weight in task.model.weights.items()}
    for step in range(1, 4):
        task.step()
        share = 1.0 - min(0.5, step / (step + 1))
        for name, weight in task.model.weights.items():
            expected[name] = expected[name] + share * (weight.detach() - expected[name])
    for name, weight in task.model.evaluated.items():
        assert torch.allclose(weight, expected[name], atol=1e-6), name
    before = task.evaluate()["val_ce"]
    with torch.no_grad():
        task.model.get_parameter("head").mul_(2.0)
    assert task.evaluate()["val_ce"] == before


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_learns(make_task: MakeTask, estimator: str) -> None:
    task = make_task(0, **ALONE, estimator=estimator, bptt_steps=8, lr=2e-2, warmup=1, schedule="constant", ema=None)
    before = task.evaluate()["val_ce"]
    reports = [task.step() for _ in range(12)]
    after = task.evaluate()
    assert after["val_ce"] < before - 0.3
    assert reports[-1]["skipped_steps"] == 0.0
    assert after["cosine"] > 0.9  # early on all of them are right
    assert {metric.rate_of or metric.name for metric in FAMILY.metrics} >= reports[-1].keys() | after.keys()


def test_steps_whose_gradient_is_not_finite_move_nothing(make_task: MakeTask) -> None:
    task = make_task(0, **ALONE, spec_rho=None, ema=None)
    with torch.no_grad():
        task.model.get_parameter("wo").fill_(float("nan"))
    before = {name: weight.detach().clone() for name, weight in task.model.weights.items()}
    report = task.step()
    assert report["skipped_steps"] == 1.0
    assert report["train_ce"] != report["train_ce"]
    for name, weight in task.model.weights.items():
        assert torch.equal(weight.nan_to_num(), before[name].nan_to_num()), name
    assert task.evaluate()["cosine"] != task.evaluate()["cosine"]


def test_the_model_predicts_a_token_from_those_before_it() -> None:
    torch.manual_seed(0)
    model = EquilibriumModel(tiny())
    ids = torch.randint(257, (2, 8))
    whole = model(ids).logits
    assert torch.allclose(model(ids[:, :5]).logits, whole[:, :5], atol=1e-5)


def test_refined_states_are_for_estimators_and_evaluation_reads_the_first(make_task: MakeTask) -> None:
    task = make_task(0, **ALONE, t1=3, t1_refine=60, ema=None)
    assert task.step()["residual"] < 1e-4 < task.evaluate()["eval_residual"]


def test_rebounds_and_growth_are_told(make_task: MakeTask) -> None:
    task = make_task(0)
    losses = [3.0, 2.0, 2.0, 5.0]
    found = [task._rebound(loss) for loss in losses]
    assert found[:3] == [0.0, 0.0, 0.0]
    assert found[3] == pytest.approx(
        (0.95**3 * 3 + 0.95**2 * 2 + 0.95 * 2 + 5) / (1 + 0.95 + 0.95**2 + 0.95**3)
        - ((0.95**2 * 3 + 0.95 * 2 + 2) / (1 + 0.95 + 0.95**2))
    )
    assert [task._growth(norm) for norm in (1.0, 3.0, 2.0, float("nan"), 30.0)][-1] == 15.0


def test_a_held_readout_stays_as_it_is_and_the_rest_learns(make_task: MakeTask) -> None:
    task = make_task(0, **ALONE, head_clamp_step=1, ema=None, lr=1e-2, warmup=1)
    before = {name: weight.detach().clone() for name, weight in task.model.weights.items()}
    for moves in (True, False, False):
        report = task.step()
        groups = group_of(task.config)
        for name, weight in task.model.weights.items():
            assert torch.equal(weight, before[name]) != (moves or groups[name] != "head"), name
        before = {name: weight.detach().clone() for name, weight in task.model.weights.items()}
    assert report["grad_norm"] > 0.0
