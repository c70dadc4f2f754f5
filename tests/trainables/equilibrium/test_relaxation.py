"""The free phase: its trace, Anderson acceleration, warm starts, and what a divergence looks like."""

from __future__ import annotations

import pytest
import torch

from tests.trainables.equilibrium.configs import problem, small
from trainables.equilibrium.relaxation import relax


def test_the_trace_has_the_residual_of_each_state() -> None:
    field = problem(small(t1=5)).field
    states = [field.x]
    relaxed = relax(field, 5, 0.25, observe=lambda step, z: states.append(z))
    assert len(states) == 6
    expected = [float(field(z).norm() / z.norm()) for z in states]
    assert relaxed.residuals.tolist() == pytest.approx(expected, rel=1e-12)
    assert torch.equal(relaxed.z, states[-1])
    assert not relaxed.diverged
    assert not relaxed.z.requires_grad


def test_a_warm_start_goes_on_where_another_ended() -> None:
    field = problem(small()).field
    half = relax(field, 5, 0.25)
    whole = relax(field, 10, 0.25)
    assert torch.equal(relax(field, 5, 0.25, start=half.z).z, whole.z)


@pytest.mark.parametrize("residual_init", [0.3, 0.6])
def test_anderson_takes_fewer_steps_to_the_same_state(residual_init: float) -> None:
    field = problem(small(residual_init=residual_init, width=16, context=12)).field
    plain, mixed = relax(field, 400, 0.1), relax(field, 400, 0.1, anderson=5)
    assert float((plain.z - mixed.z).norm() / plain.z.norm()) < 1e-6
    steps = [int((relaxed.residuals > 1e-4).sum()) for relaxed in (plain, mixed)]
    assert 2 * steps[1] < steps[0]


def test_a_field_that_pushes_away_diverges_and_says_so() -> None:
    of = problem(small(residual_init=0.3))
    field = of.field
    field._kappa = -1.0  # type: ignore[attr-defined]
    relaxed = relax(field, 200, 0.5)
    assert relaxed.diverged
    far = relax(field, 3000, 0.5)
    assert far.diverged
    assert not far.residuals[-1].isfinite()
