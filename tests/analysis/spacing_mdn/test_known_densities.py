"""H, N and O on densities that are known: each planted fault fails its own check and no other."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.signal import lfilter

from analysis.diagnose.api import Finding
from analysis.spacing_mdn import against_baselines, baselines, calibration, cross_block, prime_lines
from analysis.spacing_mdn.sweep import sweep
from tests.analysis.conftest import MakeSubject, MakeTask
from tests.analysis.spacing_mdn.set_by_hand import PEAK, PLAIN, WIDTH, as_data, make, say, two_peaked
from tests.analysis.values import estimate, number
from trainables.errors import DataMissing
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.data.spacings import SpacingData
from trainables.spacing_mdn.features.linear import fit_ar
from trainables.spacing_mdn.sample import draw
from trainables.spacing_mdn.task import SpacingTask

DIAGNOSTICS = (cross_block.cross_block, calibration.calibration, against_baselines.against_baselines)
Find = Callable[[SpacingTask, SpacingData], dict[str, Finding]]
VAL_BLOCKS = 160


def gain_of_peaks() -> float:
    """Nats by which the noise's own density beats the Gaussian of its variance."""

    def density(x: float) -> float:
        return sum(math.exp(-0.5 * ((x - m) / WIDTH) ** 2) for m in (-PEAK, PEAK)) / (
            2 * WIDTH * math.sqrt(2 * math.pi)
        )

    entropy = quad(lambda x: -density(x) * math.log(density(x)), -0.5, 0.5, points=[-PEAK, PEAK])[0]
    return 0.5 * math.log(2 * math.pi * math.e * (PEAK**2 + WIDTH**2)) - float(entropy)


@cache
def data(drift: float = 0.0) -> SpacingData:
    """The upper half of val has noise wider by ``drift`` of its width, the lower half narrower."""
    side = np.where(np.arange(VAL_BLOCKS * BLOCK) < VAL_BLOCKS * BLOCK // 2, -1.0, 1.0)
    return as_data(two_peaked(60, 0), two_peaked(VAL_BLOCKS, 1, WIDTH * (1.0 + drift * side)))


def model(of: SpacingData, means: tuple[float, float] = (-PEAK, PEAK), sigma: float = WIDTH) -> SpacingTask:
    task = make(of, **PLAIN, ar_features=8)
    say(task, means, sigma)
    return task


@pytest.fixture
def findings(make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch) -> Find:
    """All three on one task over ``of``."""
    monkeypatch.setattr(baselines, "_AR_ORDERS", (1, 8))
    monkeypatch.setattr(baselines, "_ADAPTIVE", ((4, 64),))
    monkeypatch.setattr(baselines, "_MAX_TARGETS", 200)

    def find(task: SpacingTask, of: SpacingData) -> dict[str, Finding]:
        for module in (baselines, against_baselines):
            monkeypatch.setattr(module, "load", lambda name, data_dir: of)
        subject = make_subject(task)
        return {diagnostic.name: diagnostic(subject) for diagnostic in DIAGNOSTICS}

    return find


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.verdict for name, finding in found.items()}


def test_the_true_density_passes_all(findings: Find) -> None:
    found = findings(model(data()), data())
    assert verdicts(found) == {"cross_block": "pass", "calibration": "pass", "baselines": "pass"}
    assert estimate(found["baselines"], "gain").value == pytest.approx(gain_of_peaks(), abs=0.02)
    assert estimate(found["calibration"], "coverage_90").value == pytest.approx(0.9, abs=0.01)
    assert number(found["calibration"], "num_targets") > 40_000
    assert estimate(found["cross_block"], "std").high < 0.02
    assert number(found["cross_block"], "range") < found["cross_block"].threshold["range"]
    for finding in found.values():
        assert finding.plots
        assert set(finding.threshold) <= set(finding.values)


def test_drifted_blocks_fail_cross_block_only(findings: Find) -> None:
    drifted = data(0.15)
    task = model(drifted, sigma=WIDTH * 1.01)
    found = findings(task, drifted)
    assert verdicts(found) == {"cross_block": "fail", "calibration": "pass", "baselines": "pass"}
    # (1.15^2 - 0.85^2) / 2 nats between the halves: a deviation over 8 runs of that times sqrt(2 / 7).
    assert estimate(found["cross_block"], "std").value == pytest.approx(0.3 * np.sqrt(2 / 7), abs=0.02)
    assert number(found["cross_block"], "range") == pytest.approx(0.3, abs=0.04)
    (by_height,) = found["cross_block"].plots[1].series
    assert len(by_height.y) == 32
    assert list(by_height.x) == sorted(by_height.x)
    (of_runs,) = found["cross_block"].plots[0].series
    assert np.mean(by_height.y[16:]) == pytest.approx(np.mean(of_runs.y[4:]), abs=2e-3)
    assert np.mean(by_height.y[:16]) == pytest.approx(np.mean(of_runs.y[:4]), abs=2e-3)
    within = [low < y < high for low, y, high in zip(by_height.low, by_height.y, by_height.high, strict=True)]
    assert all(within)


def test_wrong_sigma_fails_calibration_only(findings: Find) -> None:
    found = findings(model(data(), sigma=1.5 * WIDTH), data())
    assert verdicts(found) == {"cross_block": "pass", "calibration": "fail", "baselines": "pass"}


def test_a_short_filter_fails_the_baselines_only(findings: Find) -> None:
    """An AR(8) with the right sigma is calibrated on a series that remembers 12 back, and misses what AR(64) knows."""
    noise = 0.15 * np.random.default_rng(5).normal(size=(60 + VAL_BLOCKS) * BLOCK)
    series = 1.0 + lfilter([1.0], [1.0, *[0.0] * 11, 0.6], noise)
    remembering = as_data(series[: 60 * BLOCK], series[60 * BLOCK :])
    found = findings(model(remembering, (0.0, 0.0), 0.15 / 0.8), remembering)
    assert verdicts(found) == {"cross_block": "pass", "calibration": "pass", "baselines": "fail"}
    assert estimate(found["baselines"], "gain").value == pytest.approx(math.log(0.8), abs=0.01)
    assert "worse" in found["baselines"].summary


def independent(num_blocks: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    number = num_blocks * BLOCK
    return 1.0 + PEAK * rng.choice([-1.0, 1.0], number) + WIDTH * rng.normal(size=number)


@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_knowing_more_than_the_marginal_is_an_alarm_on_a_random_order(verdict: str, findings: Find) -> None:
    """One series has no order; the other has one, which a model of a series without order could not know."""
    of = as_data(independent(60, 0), independent(40, 1)) if verdict == "pass" else data()
    task = make(of, **PLAIN, ar_features=8, data="shuffled")
    say(task, (-PEAK, PEAK), WIDTH)
    found = findings(task, of)["baselines"]
    assert found.verdict == verdict
    assert ("knows its targets" in found.summary) == (verdict == "fail")
    gain = estimate(found, "gain").value
    assert abs(gain) < 0.02 if verdict == "pass" else gain > 0.1


def test_nothing_finite_is_no_evidence(findings: Find, make_subject: MakeSubject) -> None:
    task = model(data())
    with torch.no_grad():
        task.model.head.weight.fill_(float("nan"))
    assert set(verdicts(findings(task, data())).values()) == {"no_evidence"}
    assert prime_lines.prime_lines(make_subject(task)).verdict == "no_evidence"


def test_slots_are_no_obstacle_and_few_windows_no_evidence(
    findings: Find, make_task: MakeTask, splits: SpacingData
) -> None:
    assert "no_evidence" not in verdicts(findings(make_task(), splits)).values()
    few = make_task(context=1020, eval_stride=1, eval_tail=1)
    assert verdicts(findings(few, splits))["cross_block"] == "no_evidence"


def test_missing_data_leave_the_baselines_without_evidence(
    make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str, data_dir: object) -> SpacingData:
        raise DataMissing("it is not there")

    monkeypatch.setattr(against_baselines, "load", missing)
    found = against_baselines.against_baselines(make_subject(model(data())))
    assert found.verdict == "no_evidence"
    assert "not there" in found.summary


def test_the_linear_baseline_on_all_of_val_is_the_baselines() -> None:
    swept = sweep(draw(model(data())))
    mine = against_baselines.linear_nll(data(), "val", swept).mean()
    series = np.concatenate([data().train.spacings[-64:], data().val.spacings])
    assert mine == pytest.approx(fit_ar(data().train.spacings, 64).nll(series), abs=1e-3)


def test_spread_takes_the_sampling_error_off() -> None:
    """Over 400 draws: without differences 0 is held and the range is exceeded in 5%; with some, they are held."""
    rng = np.random.default_rng(0)
    errors = np.full(8, 0.06)
    same = [cross_block.spread(rng.normal(0.2, 0.06, 8), errors) for _ in range(400)]
    assert np.mean([std.low == 0.0 for std, _ in same]) >= 0.93
    assert np.median([std.value for std, _ in same]) < 0.03
    true = np.linspace(-0.15, 0.15, 8)
    means = true + rng.normal(0.0, 0.06, (400, 8))
    found = [cross_block.spread(row, errors)[0] for row in means]
    assert np.mean([std.low <= true.std(ddof=1) <= std.high for std in found]) >= 0.92
    assert np.mean([std.value**2 for std in found]) == pytest.approx(true.var(ddof=1), rel=0.1)
    chance = same[0][1]
    assert np.mean(np.ptp(rng.normal(0.0, 0.06, (4000, 8)), axis=1) > chance) == pytest.approx(0.05, abs=0.012)
