"""CRPS against its integral, PIT and KS against scipy, intervals against what is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest, kstwo, norm

from analysis.spacing_mdn import calibration
from analysis.spacing_mdn.calibration import crps, ks_distance, pit
from analysis.spacing_mdn.sweep import Sweep


def mixtures(number: int, components: int, seed: int = 0) -> Sweep:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(components), number)
    return Sweep(
        positions=np.arange(number),
        run=np.zeros(number, dtype=np.int64),
        targets=rng.normal(1.0, 0.6, number),
        nll=np.zeros(number),
        log_pi=np.log(weights).astype(np.float32),
        mu=rng.normal(1.0, 0.5, (number, components)).astype(np.float32),
        sigma=rng.uniform(0.02, 0.5, (number, components)).astype(np.float32),
    )


def distribution(swept: Sweep, index: int, x: float) -> float:
    weights = np.exp(swept.log_pi[index], dtype=np.float64)
    return float(weights @ norm.cdf(x, swept.mu[index], swept.sigma[index]))


@pytest.mark.parametrize("components", [1, 3, 8])
def test_crps_is_the_integral_of_the_squared_distance(components: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_PAIRS", 2 * components**2)  # in parts of two
    swept = mixtures(5, components)
    scores = crps(swept)
    for index, target in enumerate(swept.targets):
        below = quad(lambda x, i=index: distribution(swept, i, x) ** 2, -8.0, target, limit=400, points=[0.0])[0]
        above = quad(lambda x, i=index: (1.0 - distribution(swept, i, x)) ** 2, target, 10.0, limit=400)[0]
        assert scores[index] == pytest.approx(below + above, abs=1e-6)


def test_pit_is_the_distribution_at_the_target() -> None:
    swept = mixtures(6, 4)
    by_hand = [distribution(swept, index, target) for index, target in enumerate(swept.targets)]
    assert pit(swept) == pytest.approx(by_hand, abs=1e-6)


def test_ks_is_that_of_scipy_and_its_band_that_of_independent_values() -> None:
    values = np.random.default_rng(1).uniform(size=2000)
    found = ks_distance(values)
    assert found.value == pytest.approx(kstest(values, "uniform").statistic, abs=1e-12)
    assert found.high - found.value == pytest.approx(kstwo.ppf(0.95, 2000), rel=0.15)
    assert found.low == 0.0


def test_the_band_holds_a_known_distance() -> None:
    """U^1.3 has distribution x^(1/1.3)."""
    grid = np.linspace(0.0, 1.0, 100_001)
    truth = np.abs(grid ** (1 / 1.3) - grid).max()
    rng = np.random.default_rng(2)
    found = [ks_distance(rng.uniform(size=1000) ** 1.3) for _ in range(30)]
    assert np.mean([estimate.low <= truth <= estimate.high for estimate in found]) >= 0.9
