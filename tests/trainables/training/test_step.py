"""One optimiser step: accumulation, clipping, schedule, non-finite values, resume."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.training.seeding import RngStream
from trainables.training.step import MicroLoss, OptimStep, amp_enabled, parameter_group

CPU = torch.device("cpu")


def build(seed: int = 0, **options: Any) -> tuple[nn.Linear, OptimStep]:
    with RngStream(seed, "weights", CPU):
        model = nn.Linear(3, 1).double()
    groups = [
        parameter_group([model.weight], lr_scale=1.0, weight_decay=0.1),
        parameter_group([model.bias], lr_scale=0.5, weight_decay=0.0),
        parameter_group([], lr_scale=1.0, weight_decay=0.0),
    ]
    return model, OptimStep(groups, **{"lr": lambda step: 0.1 / (step + 1), "device": CPU, **options})


def data(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    return x, 2.0 * x.sum(dim=1, keepdim=True)


def squared(model: nn.Module, step: int, parts: int = 1) -> MicroLoss:
    x, y = data(step)

    def loss(index: int) -> tuple[Tensor, dict[str, Tensor]]:
        error = (model(x.chunk(parts)[index]) - y.chunk(parts)[index]).square().mean()
        return error, {"train_error": error}

    return loss


def test_accumulated_micro_batches_are_one_big_batch() -> None:
    (big, one), (small, four) = build(), build(accumulation=4)
    for step in range(5):
        expected, got = one.take(squared(big, step)), four.take(squared(small, step, parts=4))
        assert got == pytest.approx(expected)
    torch.testing.assert_close(small.weight, big.weight)


def test_the_report_and_the_learning_rates() -> None:
    model, optim = build(clip=1e9)
    loss = squared(model, 0)(0)[0]
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    before = model.bias.detach().clone()
    report = optim.take(squared(model, 0))
    assert report == pytest.approx(
        {"train_loss": loss.item(), "train_error": loss.item(), "grad_norm": norm.item(), "lr": 0.1}
    )
    # Adam's first step has the length of the learning rate, here halved by the group's scale.
    assert (model.bias - before).abs().item() == pytest.approx(0.05, rel=1e-5)
    assert optim.take(squared(model, 1))["lr"] == pytest.approx(0.05)
    assert optim.step == 2


def test_clipping_shortens_the_whole_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optim = build(clip=0.5)
    seen: list[Tensor] = []
    update = optim._optimizer.step
    monkeypatch.setattr(
        optim._optimizer,
        "step",
        lambda: (seen.extend(p.grad.clone() for p in model.parameters() if p.grad is not None), update())[1],
    )
    report = optim.take(squared(model, 0))
    assert report["grad_norm"] > 0.5
    assert torch.cat([gradient.flatten() for gradient in seen]).norm().item() == pytest.approx(0.5, rel=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def spoil_loss(loss: Tensor) -> Tensor:
    return loss * float("nan")


def spoil_gradient(loss: Tensor) -> Tensor:
    # Finite, but its derivative at 0 is infinite.
    return loss + (loss - loss.detach()).abs().sqrt()


@pytest.mark.parametrize("spoil", [spoil_loss, spoil_gradient])
def test_non_finite_values_are_reported_and_move_nothing(spoil: Callable[[Tensor], Tensor]) -> None:
    model, optim = build()
    optim.take(squared(model, 0))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    moments = {index: dict(state) for index, state in optim.state_dict()["optimizer"]["state"].items()}
    moments = {index: {name: value.clone() for name, value in state.items()} for index, state in moments.items()}

    def spoiled(index: int) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = squared(model, 1)(index)
        return spoil(loss), parts

    report = optim.take(spoiled)
    assert not (math.isfinite(report["train_loss"]) and math.isfinite(report["grad_norm"]))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    for index, state in optim.state_dict()["optimizer"]["state"].items():
        assert all(torch.equal(value, moments[index][name]) for name, value in state.items())
    assert optim.step == 2
    healthy = optim.take(squared(model, 2))
    assert math.isfinite(healthy["train_loss"])
    assert not torch.equal(model.weight, weights["weight"])


def test_resume_continues_bit_for_bit_through_a_file() -> None:
    model, optim = build(seed=0)
    for step in range(3):
        optim.take(squared(model, step))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optim": optim.state_dict()}, file)
    file.seek(0)
    other, resumed = build(seed=1)
    state = torch.load(file, weights_only=True)
    other.load_state_dict(state["model"])
    resumed.load_state_dict(state["optim"])
    for step in range(3, 6):
        assert resumed.take(squared(other, step)) == optim.take(squared(model, step))
    assert torch.equal(other.weight, model.weight)


def test_a_cpu_computes_in_float32_unless_told() -> None:
    assert [amp_enabled(amp, CPU) for amp in ("auto", "off", "bf16")] == [False, False, True]
    model, optim = build(amp="bf16")
    seen = []

    def loss(_index: int) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append((data(0)[0].float() @ model.weight.float().t()).dtype)
        return model.weight.square().sum(), {}

    optim.take(loss)
    assert seen == [torch.bfloat16]
