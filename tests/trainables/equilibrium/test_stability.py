"""Penalties and bounds: what they are on average, what they may not do, and that they act on weights alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.trainables.equilibrium.configs import error, problem, small
from tests.trainables.equilibrium.conftest import MakeTask
from tests.trainables.equilibrium.test_field import jacobian
from trainables.equilibrium import stability
from trainables.equilibrium.estimators import ESTIMATORS
from trainables.equilibrium.estimators.api import gradients_of
from trainables.equilibrium.field import make_field


def test_the_penalty_is_on_average_the_frobenius_norm() -> None:
    of = problem(small(kappa=1.5), batch=1)
    whole = jacobian(of, of.free.z)
    n = whole.shape[0]
    excess = whole + 1.5 * torch.eye(n)
    units = torch.eye(n, dtype=torch.float64).view(n, 1, *of.free.z.shape[1:])
    total = sum(float(stability.penalty(of, unit)[0]) for unit in units)
    assert total == pytest.approx(float(excess.square().sum()) / n, rel=1e-9)


def test_the_gradients_of_both_penalties_are_theirs() -> None:
    of = problem(small())
    v = torch.randn_like(of.free.z)
    for function in (lambda: stability.penalty(of, v), lambda: stability.residual_penalty(of)):
        before, gradients = function()
        weight = of.weights["pj"]
        step = 1e-6 * torch.randn_like(weight)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * step
            values.append(float(function()[0]))
            with torch.no_grad():
                weight -= sign * step
        assert values[0] - values[1] == pytest.approx(2 * float((gradients["pj"] * step).sum()), rel=1e-5)
        assert float(before) > 0.0


def test_a_cap_holds_the_penalty_back_only_where_it_is_too_large() -> None:
    of_loss, of_penalty = torch.tensor(2.0), torch.tensor(0.5)
    assert float(stability.capped(1.0, 0.5, of_loss, of_penalty)) == 1.0
    assert float(stability.capped(16.0, 0.5, of_loss, of_penalty)) == 2.0
    assert float(stability.capped(16.0, None, of_loss, of_penalty)) == 16.0
    assert float(stability.capped(16.0, 0.5, of_loss, torch.tensor(0.0))) == 16.0


def test_the_controller_moves_towards_its_target_and_stays_within_bounds() -> None:
    config = small(jr_mode="controller", jr=0.1, jr_floor=0.05, jr_max=0.2, jr_gain=0.5, res_target=1e-3)
    assert stability.next_weight(0.1, 1e-3, config) == pytest.approx(0.1)
    assert stability.next_weight(0.1, 1.5e-3, config) == pytest.approx(0.1 * math.exp(0.5 * math.log(1.5)))
    # One bad batch counts as one that is e times too far.
    assert stability.next_weight(0.1, 1.0, config) == pytest.approx(0.1 * math.exp(0.5))
    assert stability.next_weight(0.1, math.nan, config) == pytest.approx(0.1 * math.exp(0.5))
    assert stability.next_weight(0.19, 1.0, config) == 0.2
    assert stability.next_weight(0.06, 0.0, config) == 0.05
    assert stability.next_weight(0.1, 1.0, small(jr_mode="fixed")) == 0.1


def test_a_spectral_bound_scales_what_is_above_it_and_nothing_else() -> None:
    torch.manual_seed(0)
    large, little = (nn.Parameter(scale * torch.randn(8, 5)) for scale in (1.0, 0.05))
    bound = stability.SpectralBound({"large": large, "little": little}, 0.9)
    before, untouched = large.detach().clone(), little.detach().clone()
    for _ in range(20):
        bound.apply()
    assert torch.linalg.matrix_norm(large.detach(), 2).item() == pytest.approx(0.9, rel=1e-3)
    ratio = large.detach() / before
    assert float(ratio.max() - ratio.min()) < 1e-5
    assert torch.equal(little, untouched)
    again = stability.SpectralBound({"large": large, "little": little}, 0.9)
    again.load_state_dict(bound.state_dict())
    assert all(torch.equal(vector, bound.state_dict()[name]) for name, vector in again.state_dict().items())


def test_the_residual_regulariser_draws_the_residual_down() -> None:
    of = problem(small(t1=3, residual_init=1.0))
    value, gradients = stability.residual_penalty(of)
    with torch.no_grad():
        moved = {name: weight - 1e-3 * gradients[name] for name, weight in of.weights.items()}
    z = of.free.z
    after = make_field(of.config, moved, of.ids)(z).square().sum() / z.square().sum()
    assert float(after) < float(value)


@pytest.mark.parametrize("fields", [{"jr_mode": "off"}, {"jr_mode": "fixed", "jr": 0.05}])
def test_what_stabilises_adds_to_the_gradient_and_leaves_the_estimate_alone(
    make_task: MakeTask, fields: dict[str, object]
) -> None:
    plain = {"navg": 1, "accumulation": 1, "warm_switch_step": 0, "spec_rho": None, "resreg": 0.0, "ema": None}
    task = make_task(0, **plain, **fields)
    rows = task.sequences("val", 4)
    loss, parts = task._loss(rows)
    found = gradients_of(loss, task.model.weights)
    estimate = ESTIMATORS["aep_dyadic"](task.problem(rows))
    expected = dict(estimate.gradients)
    if fields["jr_mode"] == "fixed":
        task._micro = 0
        _, of_penalty = stability.penalty(task.problem(rows), task._direction(estimate.free.z))
        expected = stability.combined(expected, of_penalty, 0.05)
        assert float(parts["jac_ratio"]) > 0.0
    for name, gradient in found.items():
        assert error(gradient, expected[name]) < 1e-5, name
