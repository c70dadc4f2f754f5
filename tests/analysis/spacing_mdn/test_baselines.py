"""The baselines: closed forms, series with known answers, and the figures of the real data."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.signal import lfilter
from scipy.special import digamma

from analysis.spacing_mdn import baselines
from analysis.spacing_mdn.baselines import adaptive_nll, wigner_nll
from trainables.spacing_mdn.data.source import SOURCE
from trainables.spacing_mdn.data.spacings import Part, SpacingData
from trainables.spacing_mdn.features.options import FeatureFields

SIGMA = 0.15


@pytest.fixture
def few_targets(monkeypatch):
    monkeypatch.setattr(baselines, "_MAX_TARGETS", 400)
    monkeypatch.setattr(baselines, "_ONLINE", ((16, 256),))
    monkeypatch.setattr(baselines, "_CLOSED_FORMS", {"bank": FeatureFields(ar_bank=256)})


def ar_series(num: int, seed: int = 5) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0.0, SIGMA, num)
    return 1.0 + lfilter([1.0], [1.0, 0.4, -0.2], noise)


def as_data(series: np.ndarray) -> SpacingData:
    cuts = np.split(series[: 60 * 256], [40 * 256, 50 * 256])
    parts = [Part(cut, np.linspace(8.0, 9.0, len(cut) // 256) + k) for k, cut in enumerate(cuts)]
    return SpacingData("first100k", *parts, digest="")


def test_wigner_density_has_mass_and_mean_one():
    def density(s):
        return math.exp(-wigner_nll(np.array([s])))

    assert quad(density, 1e-12, 12.0)[0] == pytest.approx(1.0, abs=1e-9)
    assert quad(lambda s: s * density(s), 1e-12, 12.0)[0] == pytest.approx(1.0, abs=1e-9)


def test_wigner_entropy_is_the_closed_form():
    """4 s^2 / pi is Gamma(3/2), so E ln s^2 = digamma(3/2) + ln(pi / 4) and the exponent's mean is 3/2."""
    entropy = -math.log(32.0 / math.pi**2) - digamma(1.5) - math.log(math.pi / 4.0) + 1.5
    draws = np.sqrt(np.random.default_rng(0).gamma(1.5, math.pi / 4.0, 400_000))
    assert wigner_nll(draws) == pytest.approx(entropy, abs=5e-3)
    assert wigner_nll(np.array([0.0])) == math.inf


@pytest.mark.usefixtures("few_targets")
def test_global_rows_reach_the_entropy_of_the_noise(monkeypatch):
    monkeypatch.setattr(baselines, "load", lambda name, data_dir: as_data(ar_series(60 * 256)))
    rows = {row.name: row.value for row in baselines.baselines("first100k", Path("unused"))}
    entropy = math.log(SIGMA) + 0.5 * math.log(2 * math.pi * math.e)
    assert rows["AR(8)"] == pytest.approx(entropy, abs=0.05)
    assert rows["AR(64)"] == pytest.approx(rows["AR(8)"], abs=0.02)
    assert rows["AR(1)"] > rows["AR(8)"]
    assert rows["AR(64) of the last 256"] > rows["AR(64)"]
    for name in ("AR(16) of the last 256", "AR(64) of the last 256, shrunk", "bank"):
        assert entropy < rows[name] < rows["AR(64) of the last 256"], name


@pytest.mark.usefixtures("few_targets")
def test_a_split_is_scored_from_what_lies_below_it(monkeypatch):
    """Changing test does not change what val is told."""
    whole = as_data(ar_series(60 * 256))
    changed = SpacingData("first100k", whole.train, whole.val, Part(whole.test.spacings * 2, whole.test.log_height), "")
    monkeypatch.setattr(baselines, "load", lambda name, data_dir: whole)
    before = baselines.baselines("first100k", Path("unused"), split="val")
    monkeypatch.setattr(baselines, "load", lambda name, data_dir: changed)
    assert baselines.baselines("first100k", Path("unused"), split="val") == before


def test_adaptive_is_ordinary_least_squares_by_hand():
    series = ar_series(300)
    at, order, window = 250, 3, 40
    past = series[at - window : at]
    rows = np.array([[1.0, past[t - 1], past[t - 2], past[t - 3]] for t in range(3, window)])
    coef = np.linalg.lstsq(rows, past[3:], rcond=None)[0]
    new = np.array([1.0, series[at - 1], series[at - 2], series[at - 3]])
    variance = np.sum((past[3:] - rows @ coef) ** 2) / (len(rows) - 4)
    variance *= 1.0 + new @ np.linalg.solve(rows.T @ rows, new)
    by_hand = 0.5 * ((series[at] - new @ coef) ** 2 / variance + math.log(2 * math.pi * variance))
    nll, error = adaptive_nll(series, np.array([at]), order, window)
    assert nll == pytest.approx(by_hand, rel=1e-8)
    assert error == 0.0


@pytest.mark.parametrize(("order", "window"), [(1, 4), (5, 40), (64, 256)])
def test_normal_equations_are_those_of_the_design_matrix(order, window):
    context = ar_series(3 * (window + 1)).reshape(3, -1) - 1.0
    gram, moment = baselines._normal_equations(context, order)
    for row, values in enumerate(context):
        design = np.array([[1.0, *values[t - order : t]] for t in range(order, window)])
        assert gram[row] == pytest.approx(design.T @ design, rel=1e-11, abs=1e-11)
        assert moment[row] == pytest.approx(design.T @ values[order:window], rel=1e-11, abs=1e-11)


def test_adaptive_sees_only_its_window():
    series = ar_series(300)
    other = series.copy()
    other[:200] += 1.0
    other[251:] += 1.0
    at = np.array([250])
    assert adaptive_nll(series, at, 3, 50) == adaptive_nll(other, at, 3, 50)


@pytest.mark.parametrize(("at", "window", "says"), [(100, 9, "over 9"), (20, 40, "window=40")])
def test_adaptive_refuses(at, window, says):
    with pytest.raises(ValueError, match=says):
        adaptive_nll(ar_series(300), np.array([at]), 4, window)


def check(rows, expected):
    measured = {row.name: round(row.value, 4) for row in rows}
    for name, (value, bound) in expected.items():
        assert measured[name] == pytest.approx(value, abs=bound), name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_figures_of_first100k(data_dir):
    SOURCE.prepare("first100k", data_dir)
    expected = {"Wigner surmise": (0.4911, 2e-4), "AR(32)": (-0.0913, 2e-4), "AR(64)": (-0.1382, 2e-4)}
    expected |= {"AR(64), height^2": (-0.3130, 5e-4), "AR(64) of the last 256": (-0.5914, 2e-3)}
    check(baselines.baselines("first100k", data_dir), expected)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_figures_of_full(data_dir):
    SOURCE.prepare("full", data_dir)
    values = {1: 0.461, 8: 0.380, 16: 0.313, 32: 0.065, 64: -0.044}
    expected = {f"AR({order})": (value, 1.1e-3) for order, value in values.items()}
    expected |= {"Wigner surmise": (0.503, 1e-3), "AR(64), height^2": (-0.229, 1e-3)}
    expected |= {"AR(64) of the last 256": (-0.3042, 2e-3), "AR(64) of the last 1024": (-0.4977, 2e-3)}
    check(baselines.baselines("full", data_dir), expected)
