"""Estimators where the answer is known: linear fields, settled states, the order of their error, their digits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainables.equilibrium.configs import MODES, cosine, error, exact_adjoint, problem, small
from trainables.equilibrium.config import EstimatorName
from trainables.equilibrium.estimators import ESTIMATORS
from trainables.equilibrium.estimators.api import Estimate, Evidence, Problem
from trainables.equilibrium.linearised import Vector

AEP: tuple[EstimatorName, ...] = ("aep_frozen", "aep_frozen_rc", "aep_tracking", "aep_dyadic", "holo")


class LinearField:
    """F(z) = z M' + x on the state of each token."""

    largest_step = math.inf

    def __init__(self, matrix: Tensor, x: Tensor) -> None:
        self.matrix, self.x = matrix, x

    def __call__(self, z: Tensor) -> Tensor:
        return self.x + z @ self.matrix.T.to(z.dtype)


class ConstantPull:
    """A loss that is linear in the state."""

    def __init__(self, pull: Tensor) -> None:
        self.pull = pull

    def force(self, z: Tensor) -> Tensor:
        return self.pull.to(z.dtype).expand(z.shape)


class LinearProblem(Problem):
    """A linear field that is stable and far from symmetric, under a linear loss."""

    def __init__(self, **fields: Any) -> None:
        torch.manual_seed(0)
        self.config = small(t1=1, t2=200, eps=0.5, **fields)
        n = self.config.width
        matrix = -torch.eye(n).double() + 0.5 * torch.randn(n, n).double().triu(1)
        self.field = LinearField(matrix, torch.randn(2, 6, n).double())
        self.readout = ConstantPull(torch.randn(2, 6, n).double())  # type: ignore[assignment]

    def estimate(self, adjoint: Vector, evidence: Evidence) -> Estimate:
        return Estimate(torch.zeros(()), {}, self.free, adjoint, evidence)


@pytest.mark.parametrize("name", [*AEP, "implicit"])
@pytest.mark.parametrize("beta", [0.01, 2.0])
def test_on_a_linear_field_every_estimate_is_the_adjoint(name: EstimatorName, beta: float) -> None:
    linear = LinearProblem(beta=beta, holo_radius=max(beta, 0.1))
    found = ESTIMATORS[name](linear).adjoint
    assert found is not None
    true = linear.pull @ torch.linalg.inv(linear.field.matrix)  # type: ignore[attr-defined]
    assert error(found, true) < (1e-4 if name == "implicit" else 1e-8)


def test_on_a_linear_field_plain_propagation_solves_the_transposed_equation() -> None:
    linear = LinearProblem(beta=0.1)
    found = ESTIMATORS["ep"](linear).adjoint
    assert found is not None
    inverse = torch.linalg.inv(linear.field.matrix)  # type: ignore[attr-defined]
    assert error(found, linear.pull @ inverse.T) < 1e-8
    assert error(found, linear.pull @ inverse) > 0.1


@pytest.mark.parametrize("mode", MODES)
def test_at_rest_every_estimate_is_the_adjoint_and_gradients_are_exact(mode: str) -> None:
    settled = {"t1": 60, "t2": 60, "eps": 0.5, "beta": 1e-3, "holo_radius": 0.05, "bptt_steps": 60, "margin": 0.5}
    if mode == "mono":  # its spectrum is wide
        settled |= {"t1": 150, "t2": 150, "eps": 0.25, "bptt_steps": 150}
    at_rest = problem(small(**MODES[mode], **settled))
    assert float(at_rest.free.residual) < 1e-10
    true = ESTIMATORS["bptt"](at_rest).gradients
    for name in (*AEP, "implicit"):
        found = ESTIMATORS[name](at_rest)
        for weight, gradient in found.gradients.items():
            assert cosine(gradient, true[weight]) > 0.9999, (name, weight)
            assert float(gradient.norm() / true[weight].norm()) == pytest.approx(1.0, abs=1e-2), (name, weight)


def test_reverse_mode_through_few_steps_is_not_yet_the_gradient() -> None:
    true, few = (ESTIMATORS["bptt"](problem(small(t1=60, eps=0.5, bptt_steps=steps))).gradients for steps in (60, 2))
    assert error(few["wq"], true["wq"]) > 0.2
    # The readout's own gradient needs no steps at all.
    assert error(few["head"], true["head"]) < 1e-9


@pytest.mark.parametrize(
    ("name", "field", "sizes", "order", "more"),
    [
        ("aep_dyadic", "beta", (0.2, 0.1), 2, {}),
        ("aep_frozen", "beta", (0.2, 0.1), 2, {}),
        ("holo", "holo_radius", (0.2, 0.1), 2, {"holo_points": 2}),
        ("holo", "holo_radius", (0.2, 0.1), 4, {"holo_points": 4}),
        ("holo", "holo_radius", (0.2, 0.1), 6, {"holo_points": 6}),
    ],
)
def test_the_error_falls_with_the_nudge_by_the_declared_order(
    name: EstimatorName, field: str, sizes: tuple[float, float], order: int, more: dict[str, Any]
) -> None:
    def adjoint(size: float) -> tuple[Tensor, Tensor]:
        at_rest = problem(small(t1=60, t2=60, eps=0.5, **{field: size}, **more))
        found = ESTIMATORS[name](at_rest).adjoint
        assert found is not None
        return found, exact_adjoint(at_rest)

    errors = [error(*adjoint(size)) for size in sizes]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25), errors


def test_holo_with_two_points_is_frozen() -> None:
    two = problem(small(holo_points=2, holo_radius=0.1, beta=0.1))
    one, other = (ESTIMATORS[name](two).adjoint for name in ("holo", "aep_frozen"))
    assert one is not None
    assert other is not None
    assert error(one, other) < 1e-12


def test_states_off_the_upper_half_plane_are_the_conjugates_of_those_on_it() -> None:
    from trainables.equilibrium.estimators.contour import Contour, corrected

    at = problem(small(t1=10, t2=10))
    half = Contour(at, corrected(at), points=6, radius=0.3)
    for _ in range(5):
        half.advance()
    # All six, each for itself.
    z, states = at.free.z, []
    for k in range(6):
        beta = 0.3 * complex(math.cos(math.pi * k / 3), math.sin(math.pi * k / 3))
        state = z.to(torch.complex128)
        for _ in range(5):
            state = state + at.config.eps * (corrected(at)(state) - beta * at.readout.force(state))
        states.append((state - z) / beta)
    assert error(half.adjoint(), torch.stack(states).mean(dim=0).real) < 1e-12


def test_in_float32_the_dyadic_form_keeps_the_digits_that_a_pair_loses() -> None:
    fields = {"t1": 60, "t2": 60, "beta": 1e-4}
    true = ESTIMATORS["aep_dyadic"](problem(small(**fields))).adjoint
    pair = ESTIMATORS["aep_tracking"](problem(small(**fields))).adjoint
    assert true is not None
    assert pair is not None
    assert error(pair, true) < 1e-9
    found = {
        name: ESTIMATORS[name](problem(small(**fields), dtype=torch.float32)).adjoint
        for name in ("aep_dyadic", "aep_tracking")
    }
    assert error(found["aep_dyadic"].double(), true) < 1e-5  # type: ignore[union-attr]
    assert error(found["aep_tracking"].double(), true) > 1e-4  # type: ignore[union-attr]


def test_what_frozen_makes_of_a_state_that_has_not_settled_and_what_repairs_it() -> None:
    # A weak nudge, so that what is left is no error of the nudge.
    fields = {"t1": 6, "t2": 80, "beta": 0.002, "eps_nudged": 0.5}
    unsettled = problem(small(**fields))
    assert float(unsettled.free.residual) > 0.02
    true = exact_adjoint(unsettled)
    errors = {}
    for name in ("aep_frozen", "aep_frozen_rc"):
        found = ESTIMATORS[name](unsettled).adjoint
        assert found is not None
        errors[name] = error(found, true)
    assert errors["aep_frozen_rc"] < 1e-3
    assert errors["aep_frozen"] > 100 * errors["aep_frozen_rc"]
    # Tracking follows the state to where it would settle, and is right there.
    settled = problem(small(**{**fields, "t1": 400}))
    followed = ESTIMATORS["aep_dyadic"](unsettled).adjoint
    assert followed is not None
    assert error(followed, exact_adjoint(settled)) < 0.01
