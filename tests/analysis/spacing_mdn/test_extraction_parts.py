"""What extraction is made of: lines of known amplitude and phase, terms in natural units, selection, widths."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.spacing_mdn.extraction import lines, selection, spread
from analysis.spacing_mdn.extraction.seen import Places, look
from analysis.spacing_mdn.extraction.terms import Term, dictionary
from tests.analysis.spacing_mdn.planted import MLP, in_three
from tests.analysis.spacing_mdn.set_by_hand import make
from trainables.spacing_mdn.config import SpacingConfig
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.data.spacings import load
from trainables.spacing_mdn.features import field, prime_lines
from trainables.spacing_mdn.features.heights import heights_of, rounded
from trainables.spacing_mdn.features.online_ar import fit_online
from trainables.spacing_mdn.features.prime_lines import lines_up_to

HEIGHT = 9.2
AMPLITUDES, PHASES = np.array([0.2, 0.1, 0.15]), np.array([20.0, -70.0, 150.0])
LINES = lines_up_to(5)  # 2, 3, 5, 4
NAMED = [0, 1, 2]


def fence(number: int, start: float = 60_000.0) -> Places:
    """Evenly spaced zeros."""
    times = start + 2.0 * math.pi / HEIGHT * np.arange(number)
    return Places(times, np.full(number, HEIGHT), np.ones(number))


def planted(at: Places) -> np.ndarray:
    """Spacings of S = -sum of amplitude sin(w t - phase), from each zero to the next."""

    def count(times: np.ndarray) -> np.ndarray:
        waves = AMPLITUDES * np.sin(times[:, None] * LINES.omega[NAMED] - np.radians(PHASES))
        return -waves.sum(axis=1)  # type: ignore[no-any-return]

    return 1.0 - (count(at.times + 2.0 * math.pi / HEIGHT) - count(at.times))


def test_lines_of_known_amplitude_and_phase_are_within_their_intervals() -> None:
    at, rng, held = fence(4096), np.random.default_rng(0), []
    for _ in range(40):
        found = lines.fit(planted(at) + 0.3 * rng.normal(size=4096), at, LINES).found
        for index, (amplitude, phase) in enumerate(zip(AMPLITUDES, PHASES, strict=True)):
            assert found[index].amplitude.value == pytest.approx(amplitude, abs=0.05)
            assert found[index].phase.value == pytest.approx(phase, abs=15.0)
            held.append(found[index].amplitude.low <= amplitude <= found[index].amplitude.high)
            held.append(found[index].phase.low <= phase <= found[index].phase.high)
    assert np.mean(held) > 0.9


def test_where_there_is_no_line_the_amplitude_reaches_nothing() -> None:
    at, rng = fence(4096), np.random.default_rng(1)
    absent = [lines.fit(planted(at) + 0.3 * rng.normal(size=4096), at, LINES).found[3] for _ in range(40)]
    silent = [math.isnan(line.phase.low) for line in absent]
    assert np.mean(silent) > 0.7
    assert max(line.amplitude.value for line in absent) < 0.04


def test_shares_are_those_of_another_stretch() -> None:
    at, above = fence(4096), fence(4096, 64_000.0)
    noise = 0.1 * np.random.default_rng(2).normal(size=(2, 4096))
    found = lines.fit(planted(at) + noise[0], at, LINES)
    series = planted(above) + noise[1]
    shares = lines.shares(found, series, above)
    true = 1.0 - noise[1].var() / series.var()
    assert shares.all.value == pytest.approx(true, abs=0.01)
    assert shares.all.low < true < shares.all.high
    gains = 2.0 * np.sin(math.pi * LINES.omega[NAMED] / HEIGHT)
    each = np.square(AMPLITUDES * gains) / 2.0 / series.var()
    assert [shares.by_prime[p] for p in (2, 3, 5)] == pytest.approx(each.tolist(), abs=0.03)


def test_true_spacings_have_the_lines_of_the_explicit_formula(first100k_dir: Path) -> None:
    """1 / (pi p^1/2) for each prime up to 31, and phase 0, on zeros that nothing was fitted to."""
    part = load("first100k", first100k_dir).val
    at = heights_of(part.spacings, part.log_height, BLOCK, exact=True)
    places = Places(at.times[:-1], at.log_height[:-1], part.spacings)
    known = lines.resolved_lines(places)
    assert known is not None
    found = lines.fit(part.spacings, places, known)
    ratios = [line.amplitude.value / a for line, a in zip(found.found, known.amplitude, strict=True)]
    low = (known.power == 1) & (known.prime <= 31)
    assert int(low.sum()) == 11
    assert np.array(ratios)[low] == pytest.approx(1.0, abs=0.02)
    assert [line.phase.value for line, is_low in zip(found.found, low, strict=True) if is_low] == pytest.approx(
        [0.0] * 11, abs=5.0
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"context": 8, "eval_tail": 8},
        {"context": 40, "ar_features": 4, "height_input": True},
        {"prime_lines": 5, "prime_window": 100, "prime_grid": True},
        {"prime_lines": 5, "prime_window": 100, "ar_bank": 256, "height_input": True},
        {"layout": "none", "prime_lines": 5, "prime_window": 100, "ar_bank": 256},
    ],
)
def test_every_term_has_a_column(fields: dict[str, Any]) -> None:
    series = 1.0 + 0.3 * np.random.default_rng(3).normal(size=36 * BLOCK)
    task = make(in_three(series, (16, 10, 10)), **(MLP | fields))
    seen = look(task, "val")
    names = [term.name for term in dictionary(task.config)]
    assert seen.terms.shape[1] == len(names) == len(set(names))
    lag = 3
    assert seen.terms[:, names.index(f"x{lag}")] == pytest.approx(
        task.part("val").spacings[seen.positions - lag] - 1.0, abs=1e-6
    )
    assert seen.targets == pytest.approx(task.part("val").spacings[seen.positions])


def test_terms_are_in_natural_units() -> None:
    series = 1.0 + 0.3 * np.random.default_rng(5).normal(size=36 * BLOCK)
    task = make(
        in_three(series, (16, 10, 10)),
        **(MLP | {"prime_lines": 5, "prime_window": 100, "prime_grid": True, "ar_bank": 256}),
    )
    seen, whole = look(task, "val"), task.data.whole
    at = {term.name: column for term, column in zip(dictionary(task.config), seen.terms.T, strict=True)}
    known = heights_of(whole.spacings, rounded(whole.log_height, 1e-3), BLOCK, exact=False)
    run = prime_lines.fitted(known.times, known.counts, lines_up_to(5), 100, 0.02, 16)
    ahead = field.ahead(run, lines_up_to(5), known.times, known.log_height)
    row = task.data.start("val") + seen.positions - 1 - ahead.first
    assert at["R"] == pytest.approx(ahead.residuals[row, 0], abs=1e-5)
    assert at["(f(0.5) - 0.5)"] == pytest.approx(ahead.zeta[row, 8] - 0.5, abs=1e-5)
    fit = fit_online(whole.spacings, 32, 256, 16)
    row = task.data.start("val") + seen.positions - 1 - fit.first
    assert at["(a32.256 - 1)"] == pytest.approx(fit.prediction[row] - 1.0, abs=1e-5)
    assert at["w32.256"] == pytest.approx(np.log(fit.sigma[row]), abs=1e-5)
    assert at["e32.256[2]"] == pytest.approx(fit.residuals[row, 1], abs=1e-5)


def test_names_of_a_formula_can_be_read() -> None:
    names = (Term("a", ""), Term("(b - 1)", ""))
    formula = selection.Formula(((0,), (0, 0), (0, 1)), np.array([1.0, 0.12345, -2.0, 3e-5]), ())
    assert formula.text(names) == "mean = 1 + 0.123 a - 2 a^2 + 3e-05 a (b - 1)"
    assert formula.predict(np.array([[2.0, 3.0]])) == pytest.approx([1.0 + 0.2469 - 8.0 + 18e-5])


def test_forward_selection_takes_what_is_there_and_no_sum_of_it() -> None:
    rng = np.random.default_rng(6)
    terms = rng.normal(size=(4000, 30))
    terms[:, 7] = terms[:, 3] + 1e-9 * terms[:, 8]
    target = 2.0 * terms[:, 3] - terms[:, 20] + 0.5 * rng.normal(size=4000)
    chosen = selection.forward(terms, target, 12)
    assert len(chosen) == 2
    assert chosen[0] in (3, 7)
    assert chosen[1] == 20
    assert selection.forward(terms, rng.normal(size=4000), 12) == []


def test_coefficients_are_within_their_intervals() -> None:
    rng, held = np.random.default_rng(7), []
    for _ in range(40):
        terms = rng.normal(size=(2000, 2))
        target = 1.0 + terms @ [0.5, -0.2] + 0.3 * rng.normal(size=2000)
        formula = selection.fit(terms, target, ((0,), (1,)))
        held += [i.low <= true <= i.high for i, true in zip(formula.intervals, (1.0, 0.5, -0.2), strict=True)]
    assert np.mean(held) > 0.85


def test_a_width_that_is_linear_in_terms_is_found() -> None:
    rng = np.random.default_rng(8)
    terms = rng.normal(size=(8000, 10))
    errors = np.exp(-1.5 + 0.6 * terms[:, 4] - 0.3 * terms[:, 9]) * rng.normal(size=8000)
    found = spread.fit(terms, errors)
    assert found.places == (4, 9)
    assert found.coef == pytest.approx([-1.5, 0.6, -0.3], abs=0.03)
    assert found.nll(terms, errors).mean() == pytest.approx(-1.5 + 0.5 + 0.5 * math.log(2 * math.pi), abs=0.03)
    # Beyond what was seen the width stays at its ends.
    far = found.nll(np.full((1, 10), 100.0), np.zeros(1)) - 0.5 * math.log(2 * math.pi)
    assert far == pytest.approx([found.highest])


def test_a_constant_width_is_the_root_mean_square() -> None:
    errors = 0.7 * np.random.default_rng(9).normal(size=5000)
    assert spread.fit(errors[:, None], errors, 0).coef == pytest.approx([0.5 * math.log(np.mean(errors**2))])


def test_a_config_has_one_term_a_channel_but_for_spacings_and_one_offset() -> None:
    """Columns are what the model sees: nothing of it is left out but older spacings, and an offset said twice."""
    config = SpacingConfig(layout="mlp", context=48, eval_tail=4, prime_lines=5, prime_grid=True, prime_window=100)
    assert len(dictionary(config)) == 32 + 20
