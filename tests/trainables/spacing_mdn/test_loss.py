"""Losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trainables.spacing_mdn.loss import aux_loss, mixture_entropy, mixture_nll, ortho_loss
from trainables.spacing_mdn.model import Prediction


def mixture(pi: list[float], mu: list[float], sigma: list[float]) -> Prediction:
    log_pi, means, deviations = (torch.tensor([[row]], dtype=torch.float64) for row in (pi, mu, sigma))
    return Prediction(log_pi.log(), means, deviations)


def density(prediction: Prediction, x: Tensor) -> Tensor:
    """The density at each x (n,), one at a time as a batch."""
    many = Prediction(*(part.expand(len(x), -1, -1) for part in (prediction.log_pi, prediction.mu, prediction.sigma)))
    return (-mixture_nll(many, x.unsqueeze(1))).exp().squeeze(1)


def test_one_component_is_a_gaussian() -> None:
    nll = mixture_nll(mixture([1.0], [1.2], [0.4]), torch.tensor([[0.7]], dtype=torch.float64))
    assert nll.item() == pytest.approx(0.5 * (0.5 / 0.4) ** 2 + math.log(0.4) + 0.5 * math.log(2 * math.pi))


def test_equal_components_are_one() -> None:
    x = torch.tensor([[0.7]], dtype=torch.float64)
    one, two = mixture([1.0], [1.2], [0.4]), mixture([0.3, 0.7], [1.2, 1.2], [0.4, 0.4])
    assert mixture_nll(one, x).item() == pytest.approx(mixture_nll(two, x).item())


def test_the_density_integrates_to_one() -> None:
    x = torch.linspace(-8.0, 10.0, 20_001, dtype=torch.float64)
    total = torch.trapezoid(density(mixture([0.2, 0.5, 0.3], [0.4, 1.0, 2.0], [0.1, 0.3, 0.9]), x), x)
    assert total.item() == pytest.approx(1.0, abs=1e-9)


def test_far_targets_stay_finite_in_float32() -> None:
    prediction = Prediction(*(torch.full((1, 1, 2), value) for value in (math.log(0.5), 1.0, 1e-4)))
    target = torch.tensor([[3.0]], requires_grad=True)
    nll = mixture_nll(prediction, target)
    nll.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(nll).all()
    assert target.grad is not None
    assert torch.isfinite(target.grad).all()


def test_nan_stays_with_its_target() -> None:
    prediction = Prediction(*(torch.full((1, 2, 1), value) for value in (0.0, 1.0, 0.5)))
    nll = mixture_nll(prediction, torch.tensor([[float("nan"), 1.0]]))
    assert nll.isnan().tolist() == [[True, False]]


def test_entropy_between_nothing_and_log_k() -> None:
    even = torch.full((1, 1, 8), 1 / 8, dtype=torch.float64).log()
    assert mixture_entropy(even).item() == pytest.approx(math.log(8))
    assert mixture_entropy(torch.tensor([[[0.0, -80.0]]])).item() == pytest.approx(0.0, abs=1e-6)


def test_ortho_loss_knows_orthogonal_parallel_and_oblique() -> None:
    eye = torch.eye(4, dtype=torch.float64).reshape(1, 1, 4, 4)
    assert ortho_loss(3.0 * eye).item() == 0.0
    assert ortho_loss(torch.ones(2, 1, 3, 5, dtype=torch.float64)).item() == pytest.approx(1.0)
    angle = math.pi / 3
    pair = torch.tensor([[[[2.0, 0.0], [math.cos(angle), math.sin(angle)]]]], dtype=torch.float64)
    assert ortho_loss(pair).item() == pytest.approx(0.25)
    assert ortho_loss(eye[:, :, :1]).item() == 0.0
    assert ortho_loss(torch.zeros(1, 1, 2, 3)).item() == 0.0


@pytest.mark.parametrize("outputs", [4, 8, 16])
def test_slot_i_answers_for_statistic_i_only(outputs: int) -> None:
    statistics = torch.arange(8.0).expand(3, 8)
    predicted = (torch.arange(outputs) % 8).float().expand(3, outputs).clone()
    assert aux_loss(predicted, statistics).item() == 0.0
    predicted[:, 1] += 2.0
    assert aux_loss(predicted, statistics).item() == pytest.approx(4.0 / outputs)
