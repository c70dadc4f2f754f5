"""Training steps once more by hand: schedules, micro-batches, losses, clipping, AdamW, the experts' bias."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainables.shared_moe.configs import NO_AUX
from tests.trainables.shared_moe.conftest import MakeTask, trained
from trainables.shared_moe.routing import Router

SCHEDULE: dict[str, Any] = {"schedule_steps": 10, "warmup": 2, "lr": 0.01, "weight_decay": 0.3, "clip": 0.05}
AUX = {"aux_loss_coef_start": 0.05, "aux_loss_coef_end": 0.01, "aux_warmup_frac": 0.2, "aux_decay_end_frac": 0.8}
LOSSFREE = {**NO_AUX, "balance": "lossfree", "bias_update_rate": 0.01}


def learning_rate(step: int, final: float) -> float:
    """Two steps of warm-up to 0.01, then half a cosine to ``final`` of it at step 10."""
    if step < 2:
        return 0.005 * (step + 1)
    return 0.01 * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(8, step - 2) / 8)))


def coefficient(step: int) -> float:
    """0.05 up to step 2, 0.01 from step 8."""
    return 0.05 - 0.04 * min(max(step - 2, 0), 6) / 6


def adamw(
    parameter: Tensor,
    gradient: Tensor,
    moments: list[Tensor],
    step: int,
    *,
    lr: float,
    decay: float,
    betas: tuple[float, float],
) -> None:
    """Loshchilov & Hutter 2019, algorithm 2."""
    moments[0] = betas[0] * moments[0] + (1 - betas[0]) * gradient
    moments[1] = betas[1] * moments[1] + (1 - betas[1]) * gradient**2
    mean, square = (moment / (1 - beta ** (step + 1)) for moment, beta in zip(moments, betas, strict=True))
    with torch.no_grad():
        parameter.copy_(parameter * (1 - lr * decay) - lr * mean / (square.sqrt() + 1e-8))


def decays(name: str) -> bool:
    """Matrices do, the embedding among them; norms, positions, depth embeddings and biases do not."""
    return name.endswith((".weight", ".w_in", ".w_out")) and "norm" not in name


@pytest.mark.parametrize(
    ("final", "betas", "fields"),
    [(0.1, (0.9, 0.95), {}), (0.0, (0.8, 0.9), {"lr_final": 0.0, "betas": (0.8, 0.9)})],
    ids=["as language models have it", "to zero, shorter moments"],
)
def test_twelve_steps_by_hand(
    final: float, betas: tuple[float, float], fields: dict[str, Any], make_task: MakeTask
) -> None:
    task = make_task(3, accumulation=2, z_loss_coef=0.003, **SCHEDULE, **AUX, **fields)
    model, order = copy.deepcopy(task.model), copy.deepcopy(task._order)
    tokens = torch.from_numpy(task._data.train.tokens[:].astype("int64"))
    moments = {name: [torch.zeros_like(p), torch.zeros_like(p)] for name, p in model.named_parameters()}
    for step in range(12):
        losses = []
        for starts in order.take(4).view(2, 2):
            rows = torch.stack([tokens[start : start + 17] for start in starts])
            output = model(rows[:, :-1])
            ce = -output.logits.log_softmax(-1).gather(-1, rows[:, 1:, None]).mean()
            routing = output.routing
            load = routing.counts / (2 * 2 * 16)  # two sequences of 16 tokens, two experts each
            aux = 4 * (routing.importance * load).sum(dim=1).mean()
            losses.append((ce + coefficient(step) * aux + 0.003 * routing.squared_logsumexp.mean()) / 2)
            losses[-1].backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values() if g is not None))
        report = task.step()
        assert report["lr"] == pytest.approx(learning_rate(step, final))
        assert report["aux_coef"] == pytest.approx(coefficient(step))
        assert report["train_loss"] == pytest.approx(sum(losses).item(), abs=1e-5)
        assert report["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert norm > 0.05
        for name, parameter in model.named_parameters():
            gradient = gradients[name]
            assert gradient is not None
            adamw(
                parameter,
                gradient * 0.05 / norm,
                moments[name],
                step,
                lr=learning_rate(step, final),
                decay=0.3 if decays(name) else 0.0,
                betas=betas,
            )
            parameter.grad = None
    trained_model = dict(task.model.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, trained_model[name], atol=2e-5, rtol=0, msg=name)


@pytest.mark.parametrize("blocks", ["shared", "indexed"])
def test_loss_free_balancing_counts_the_whole_step_and_what_shares_a_router(make_task: MakeTask, blocks: str) -> None:
    task = make_task(0, accumulation=4, blocks=blocks, **LOSSFREE)
    before = copy.deepcopy(task.model)
    starts = copy.deepcopy(task._order).take(4)
    trained(task, 1)
    # All micro-batches at once, as the weights were.
    routing = before(task._train.read(starts, torch.device("cpu"))[:, :-1]).routing
    loads = routing.counts.float().sum(dim=0, keepdim=True) if blocks == "shared" else routing.counts.float()
    shifts = torch.stack([router.shift for router in task.model.routers()])
    torch.testing.assert_close(shifts, 0.01 * (loads.mean(dim=1, keepdim=True) - loads).sign())
    assert len(shifts) == (1 if blocks == "shared" else 2)


def test_the_router_computes_in_float32_whatever_surrounds_it() -> None:
    torch.manual_seed(0)
    router, x = Router(16, 8, 2, "topk_softmax"), torch.randn(40, 16)
    exact = router(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = router(x)
        halved = router(x.bfloat16())
    for name in ("experts", "weights", "importance", "squared_logsumexp"):
        assert torch.equal(getattr(exact, name), getattr(inside, name)), name
    assert {halved.weights.dtype, halved.importance.dtype, halved.squared_logsumexp.dtype} == {torch.float32}
