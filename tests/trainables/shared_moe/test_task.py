"""Training and evaluation: what a step is, what resumes, what is reported."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.trainables.shared_moe.configs import DENSE, NO_AUX
from tests.trainables.shared_moe.conftest import MakeTask, trained
from trainables.registry import get_family
from trainables.shared_moe.routing import aux_coefficient

LOSSFREE = {**NO_AUX, "balance": "lossfree", "bias_update_rate": 0.01}


@pytest.mark.parametrize("fields", [{}, LOSSFREE, DENSE, {"blocks": "indexed"}, {"top_k": 1, "gate": "prob"}])
def test_a_saved_task_goes_on_bit_for_bit(make_task: MakeTask, fields: dict[str, Any]) -> None:
    task = make_task(1, **fields)
    trained(task, 3)
    other = make_task(2, **fields)
    trained(other, 1)
    other.load_state_dict(task.state_dict())
    assert trained(task, 3) == trained(other, 3)
    assert task.evaluate() == other.evaluate()


def test_the_coefficient_follows_the_step_over_a_resume(make_task: MakeTask) -> None:
    fields = {"schedule_steps": 40, "warmup": 4, "aux_loss_coef_start": 0.05, "aux_warmup_frac": 0.1}
    task = make_task(0, **fields)
    reports = trained(task, 5)
    other = make_task(1, **fields)
    other.load_state_dict(task.state_dict())
    reports += trained(other, 20)
    assert [r["aux_coef"] for r in reports] == [aux_coefficient(task.config, step) for step in range(25)]
    assert reports[0]["aux_coef"] > reports[10]["aux_coef"] > reports[-1]["aux_coef"] == 0.001


def test_micro_batches_add_up_to_the_batch_but_for_the_load_of_the_auxiliary_loss(make_task: MakeTask) -> None:
    whole, parts = (make_task(0, **NO_AUX, accumulation=n) for n in (1, 4))
    for one, other in zip(trained(whole, 3), trained(parts, 3), strict=True):
        assert one["train_ce"] == pytest.approx(other["train_ce"], abs=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


def test_the_parts_of_the_loss_add_up(make_task: MakeTask) -> None:
    task = make_task(0, z_loss_coef=0.003)
    for report in trained(task, 3):
        whole = report["train_ce"] + report["aux_coef"] * report["train_aux"] + 0.003 * report["train_z"]
        assert report["train_loss"] == pytest.approx(whole, abs=1e-5)


def test_tokens_are_counted_by_step(make_task: MakeTask) -> None:
    assert [r["tokens"] for r in trained(make_task(), 3)] == [4 * 16, 2 * 4 * 16, 3 * 4 * 16]


def test_loss_free_balancing_moves_the_bias_once_a_step_by_its_rate(make_task: MakeTask) -> None:
    task = make_task(0, **LOSSFREE)
    (router,) = task.model.routers()
    trained(task, 1)
    assert router.shift.abs().max().item() == pytest.approx(0.01)
    assert all(shift in (0.0, pytest.approx(0.01)) for shift in router.shift.abs().tolist())
    trained(task, 4)
    assert router.shift.abs().max() <= 0.05 + 1e-6


def test_loss_free_balancing_evens_the_load_where_nothing_else_does(make_task: MakeTask) -> None:
    shift = torch.tensor([8.0, 6.0, -6.0, -8.0])
    entropies = []
    for fields in (NO_AUX, {**LOSSFREE, "bias_update_rate": 0.2}):
        task = make_task(0, **fields)
        with torch.no_grad():
            (router,) = task.model.routers()
            router.linear.bias.copy_(shift)
            # As drawn, a router hardly tells tokens apart: all would go to the same two experts, whatever the bias.
            router.linear.weight.copy_(
                torch.randn(router.linear.weight.shape, generator=torch.Generator().manual_seed(0))
            )
        trained(task, 40)
        entropies.append(task.evaluate()["balance_entropy"])
    assert entropies[0] < 0.7 < 0.9 < entropies[1]


def test_a_step_that_is_not_finite_moves_nothing_and_is_counted(make_task: MakeTask) -> None:
    task = make_task(0, **LOSSFREE)
    trained(task, 1)
    with torch.no_grad():
        task.model.positions[0, 0] = math.nan
    before = task.state_dict()
    report = task.step()
    assert math.isnan(report["train_loss"])
    assert report["skipped_steps"] == 1.0
    after = task.state_dict()
    for name, weight in before["model"].items():
        assert torch.equal(weight.nan_to_num(9.0), after["model"][name].nan_to_num(9.0)), name


def test_evaluation_is_the_mean_cross_entropy_over_spread_sequences(make_task: MakeTask) -> None:
    task = make_task(0, eval_sequences=5)
    trained(task, 2)
    rows = task.sequences("val")
    assert rows.shape == (5, 17)
    with torch.no_grad():
        logits = task.model(rows[:, :-1]).logits.double()
    nll = -logits.log_softmax(-1).gather(-1, rows[:, 1:, None])
    report = task.evaluate()
    assert report["eval_loss"] == pytest.approx(nll.mean().item(), abs=1e-5)
    assert report["eval_ppl"] == pytest.approx(math.exp(report["eval_loss"]))
    text = task.text("val")
    assert report["eval_bits_per_byte"] == pytest.approx(
        report["eval_loss"] / math.log(2) * len(text.tokens) / text.num_bytes
    )
    assert report["token_drop"] == 0.0


@pytest.mark.parametrize(
    ("loss", "ppl"), [(2.0, math.exp(2.0)), (1e4, math.inf), (math.inf, math.inf), (math.nan, math.nan)]
)
def test_the_perplexity_of_a_loss_beyond_floats_or_of_none(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, loss: float, ppl: float
) -> None:
    task = make_task(0, **DENSE)
    monkeypatch.setattr(task, "score", lambda _sequences: (torch.tensor([[loss]], dtype=torch.float64), None))
    assert task.evaluate()["eval_ppl"] == pytest.approx(ppl, nan_ok=True)


def test_val_and_test_are_other_sequences_under_other_names(make_task: MakeTask) -> None:
    task = make_task()
    val, test = task.evaluate("val"), task.evaluate("test")
    assert test.keys() == {f"test_{name}" for name in val}
    assert val["eval_loss"] != test["test_eval_loss"]


def test_routing_over_batches_is_that_of_all_at_once(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    rows = task.sequences("val", 7)
    nll, whole = task.score(rows)
    monkeypatch.setattr("trainables.language.task._EVAL_TOKENS", 32)
    again, parts = task.score(rows)
    assert whole is not None
    assert parts is not None
    torch.testing.assert_close(nll, again, atol=1e-5, rtol=0)
    assert torch.equal(whole.counts, parts.counts)
    torch.testing.assert_close(whole.importance, parts.importance, atol=1e-6, rtol=0)
    torch.testing.assert_close(whole.squared_logsumexp, parts.squared_logsumexp, atol=1e-5, rtol=0)


def test_a_dense_model_reports_nothing_of_experts(make_task: MakeTask) -> None:
    task = make_task(0, **DENSE)
    report = {**task.step(), **task.evaluate()}
    metrics = get_family("shared_moe").metrics
    of_experts = {m.name for m in metrics[[m.name for m in metrics].index("train_aux") :]}
    assert not report.keys() & of_experts
    assert report["train_loss"] == report["train_ce"]


def test_training_learns(make_task: MakeTask) -> None:
    task = make_task(0, context=32, width=32, batch_size=16, accumulation=1, lr=1e-2, warmup=5)
    first = task.evaluate()["eval_loss"]
    trained(task, 60)
    assert first == pytest.approx(math.log(4096), abs=0.1)
    assert task.evaluate()["eval_loss"] < first - 1.0
