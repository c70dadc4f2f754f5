"""Losses and measures of routing against closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from tests.trainables.shared_moe.configs import NO_AUX, tiny
from trainables.shared_moe.routing import Router, Routing, aux_coefficient, balance_metrics, jensen_shannon

E = 8


def routing(load: torch.Tensor, importance: torch.Tensor | None = None) -> Routing:
    """``load`` in assignments; importance as given, or the load's own shares."""
    share = load / load.sum(dim=1, keepdim=True)
    return Routing(load, share if importance is None else importance, torch.zeros(len(load)))


def test_the_auxiliary_loss_is_one_when_uniform_and_e_over_k_on_k_experts() -> None:
    assert routing(torch.full((3, E), 10)).aux_loss().item() == pytest.approx(1.0)
    for k in (1, 2, 4):
        counts = torch.zeros(3, E)
        counts[:, :k] = 5
        assert routing(counts).aux_loss().item() == pytest.approx(E / k)


def test_the_auxiliary_loss_is_at_most_e_and_averaged_over_depth() -> None:
    torch.manual_seed(0)
    for _ in range(50):
        counts = torch.randint(0, 9, (4, E)) + 1
        importance = torch.rand(4, E).softmax(dim=1)
        one = routing(counts, importance)
        assert 0.0 < one.aux_loss().item() <= E
        parts = [Routing(counts[i : i + 1], importance[i : i + 1], torch.zeros(1)).aux_loss() for i in range(4)]
        assert one.aux_loss().item() == pytest.approx(torch.stack(parts).mean().item())


def test_its_gradient_pulls_the_probability_of_a_busy_expert_down() -> None:
    logits = torch.zeros(1, E, requires_grad=True)
    counts = torch.ones(1, E)
    counts[0, 3] = 9
    routing(counts, logits.softmax(dim=1)).aux_loss().backward()
    assert logits.grad is not None
    assert logits.grad[0, 3] > 0.0
    assert (logits.grad[0, [0, 1, 2, 4, 5, 6, 7]] < 0.0).all()


def test_the_z_loss_is_the_mean_squared_logsumexp() -> None:
    router = Router(4, E, 2, "topk_softmax")
    x = torch.randn(11, 4)
    logits = router.linear(x)
    assert router(x).squared_logsumexp.item() == pytest.approx(logits.logsumexp(1).square().mean().item(), rel=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_gates_are_what_their_names_say(k: int) -> None:
    x = torch.randn(13, 4)
    for gate in ("topk_softmax", "prob", "sigmoid"):
        router = Router(4, E, k, gate)
        choice, logits = router(x), router.linear(x)
        for t in range(len(x)):
            z, chosen = logits[t], choice.experts[t]
            assert set(chosen.tolist()) == set(z.argsort(descending=True)[:k].tolist())
            p = z.softmax(0)[chosen]
            wanted = {"topk_softmax": p / p.sum(), "prob": p, "sigmoid": z[chosen].sigmoid()}[gate]
            torch.testing.assert_close(choice.weights[t], wanted)


def test_the_bias_moves_the_choice_and_not_the_weights() -> None:
    router = Router(4, E, 2, "prob")
    x = torch.randn(13, 4)
    plain = router(x)
    router.shift[5] = 100.0
    moved = router(x)
    assert (moved.experts == 5).any(dim=1).all()
    assert torch.equal(moved.importance, plain.importance)
    probabilities = router.linear(x).softmax(1)
    torch.testing.assert_close(moved.weights, probabilities.gather(1, moved.experts))


def test_rebalancing_moves_each_bias_by_the_rate_towards_the_mean_load() -> None:
    router = Router(4, 4, 1, "prob")
    router.rebalance(torch.tensor([10, 0, 5, 5]), 0.25)
    assert router.shift.tolist() == [-0.25, 0.25, 0.0, 0.0]


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"aux_loss_coef_start": 0.02, "aux_loss_coef_end": 0.02, "aux_decay_end_frac": 0.0}, {0: 0.02, 999: 0.02}),
        (
            {
                "aux_loss_coef_start": 0.05,
                "aux_loss_coef_end": 0.01,
                "aux_warmup_frac": 0.1,
                "aux_decay_end_frac": 0.5,
            },
            {0: 0.05, 99: 0.05, 100: 0.05, 300: 0.03, 500: 0.01, 900: 0.01, 5000: 0.01},
        ),
        (NO_AUX, {0: 0.0, 500: 0.0}),
    ],
)
def test_the_coefficient_is_held_then_falls_in_a_line(fields: dict[str, Any], values: dict[int, float]) -> None:
    config = tiny(**fields, schedule_steps=1000)
    for step, value in values.items():
        assert aux_coefficient(config, step) == pytest.approx(value, abs=1e-15)


def test_an_even_load_is_balanced_in_every_way() -> None:
    values = balance_metrics(torch.full((4, E), 25), shared=True)
    assert values == pytest.approx(
        {
            "balance_entropy": 1.0,
            "balance_entropy_min": 1.0,
            "load_max": 1 / E,
            "load_min": 1 / E,
            "load_top4": 4 / E,
            "max_vio": 0.0,
            "dead_experts": 0.0,
            "dead_share": 0.0,
            "depth_specialisation": 0.0,
        },
        abs=1e-7,
    )


def test_a_collapse_onto_two_experts_shows_in_every_measure() -> None:
    counts = torch.zeros(3, E, dtype=torch.int64)
    counts[:, :2] = 50
    values = balance_metrics(counts, shared=True)
    assert values["balance_entropy"] == pytest.approx(math.log(2) / math.log(E))
    assert (values["load_max"], values["load_top4"], values["max_vio"]) == pytest.approx((0.5, 1.0, E / 2 - 1))
    assert (values["dead_experts"], values["dead_share"]) == (E - 2, (E - 2) / E)


def test_an_expert_is_dead_below_a_tenth_of_a_fair_share() -> None:
    # Of 10,000 assignments to 8 experts a fair share is 1,250, a tenth of it 125.
    values = balance_metrics(torch.tensor([[124, 125, 126, 1925, 1925, 1925, 1925, 1925]]), shared=True)
    assert (values["dead_experts"], values["dead_share"]) == (1.0, 1 / 8)
    assert values["load_min"] == 0.0124


def test_what_is_said_of_experts_of_each_depth_is_the_mean_over_depths() -> None:
    counts = torch.tensor([[10, 30], [20, 20]])
    values = balance_metrics(counts, shared=False)
    assert (values["load_min"], values["load_max"], values["max_vio"]) == pytest.approx((0.375, 0.625, 0.25))


def test_depths_that_share_nothing_specialise_and_yet_balance_over_depth() -> None:
    counts = 10 * torch.eye(E, dtype=torch.int64)
    shared = balance_metrics(counts, shared=True)
    assert shared["balance_entropy"] == pytest.approx(1.0)
    assert shared["balance_entropy_min"] == pytest.approx(0.0)
    alone = torch.tensor([1.0, *[0.0] * (E - 1)])
    distance = float(jensenshannon(alone.numpy(), torch.full((E,), 1 / E).numpy(), base=2))
    assert shared["depth_specialisation"] == pytest.approx(distance, rel=1e-6)
    # With experts of its own, a depth that uses one of them has collapsed.
    own = balance_metrics(counts, shared=False)
    assert own["balance_entropy"] == pytest.approx(0.0)
    assert own["dead_experts"] == E * (E - 1)
    assert own["dead_share"] == pytest.approx((E - 1) / E)


def test_jensen_shannon_agrees_with_scipy() -> None:
    torch.manual_seed(1)
    p, q = torch.rand(5, E, dtype=torch.float64).softmax(1), torch.rand(E, dtype=torch.float64).softmax(0)
    for row, distance in zip(p, jensen_shannon(p, q), strict=True):
        assert distance.item() == pytest.approx(float(jensenshannon(row.numpy(), q.numpy(), base=2)), abs=1e-12)
