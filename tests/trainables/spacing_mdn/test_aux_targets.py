"""The eight statistics against values worked out by hand and by numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainables.spacing_mdn.aux_targets import StatisticsScale, window_statistics


def test_a_constant_window() -> None:
    values = window_statistics(torch.full((1, 64), 1.5, dtype=torch.float64))[0]
    assert values.tolist() == pytest.approx([0.5, 0, 0, 1.5, 0, 0, 0, 0], abs=1e-12)


def test_an_alternating_window() -> None:
    window = torch.tensor([0.5, 1.5] * 32, dtype=torch.float64).unsqueeze(0)
    values = window_statistics(window)[0].tolist()
    # All power is at half a cycle per spacing: |64 * 0.5|^2 / 64 = 16 over the 16 frequencies above a quarter.
    assert values == pytest.approx([0, math.log(2), 1, 0.5, 2, 0, 1, 0], abs=1e-12)


def test_halves_and_runs() -> None:
    halves = torch.cat((torch.full((32,), 0.8), torch.full((32,), 1.1))).double().unsqueeze(0)
    assert window_statistics(halves)[0, 5].item() == pytest.approx(0.3)
    quiet, loud = torch.ones(16), torch.tensor([0.0, 2.0] * 8)
    # Variances in the four runs are 0, 1, 0, 1: their variance is 1/4.
    runs = torch.cat((quiet, loud, quiet, loud)).double().unsqueeze(0)
    assert window_statistics(runs)[0, 7].item() == pytest.approx(0.25)


def test_against_numpy() -> None:
    x = np.random.default_rng(3).gamma(4.0, 0.25, size=100)
    got = window_statistics(torch.from_numpy(x).unsqueeze(0))[0].tolist()
    counts = np.histogram(np.minimum(x, 3.999), bins=32, range=(0.0, 4.0))[0]
    shares = counts[counts > 0] / len(x)
    power = np.abs(np.fft.rfft(x - x.mean())) ** 2 / len(x)
    frequency = np.fft.rfftfreq(len(x))
    expected = [
        x.mean() - 1.0,
        -(shares * np.log(shares)).sum(),
        np.abs(np.diff(x)).max(),
        np.quantile(x, 0.01),
        np.abs(np.diff(x, 2)).mean(),
        abs(x[:50].mean() - x[50:].mean()),
        power[frequency > 0.25].mean(),
        x[:96].reshape(6, 16).var(axis=1).var(),
    ]
    assert got == pytest.approx(expected)


def test_targets_are_z_scored_by_what_was_fitted() -> None:
    generator = torch.Generator().manual_seed(0)
    train = torch.rand(200, 48, generator=generator, dtype=torch.float64) + 0.5
    scale = StatisticsScale.fit(train)
    targets = scale.targets(train)
    assert targets.mean(dim=0).tolist() == pytest.approx([0.0] * 8, abs=1e-9)
    assert targets.std(dim=0, correction=0).tolist() == pytest.approx([1.0] * 8)
    # A batch's own statistics never enter: one window alone has the same targets as in company.
    torch.testing.assert_close(scale.targets(train[:1]), targets[:1])


def test_a_statistic_that_never_varies_stays_finite() -> None:
    scale = StatisticsScale.fit(torch.ones(5, 32))
    assert torch.isfinite(scale.targets(torch.rand(3, 32))).all()
