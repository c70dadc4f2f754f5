"""A planted formula is given back, noise gives none, and a gain that no formula keeps is said to be one."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from analysis.extraction import Extraction, NoFormula
from analysis.spacing_mdn.extraction import extract
from analysis.stats.interval import Interval
from tests.analysis.spacing_mdn.planted import SIGMA, drawn, in_three, planted
from trainables.spacing_mdn.task import SpacingTask

LINEAR, OWN = "the formula, width linear in terms", "the winner's own mean, width linear in terms"
MARGINAL = "the marginal"


def extracted(task: SpacingTask) -> Extraction:
    return extract(SimpleNamespace(task=task))


def interval(found: Extraction, name: str) -> Interval:
    value = found.values[name]
    assert isinstance(value, Interval)
    return value


def formula(last: Any, before: Any) -> Any:
    return 0.4 * last - 0.3 * before + 0.5 * last * before


@pytest.mark.parametrize("layout", ["mlp", "none"])
def test_a_planted_formula_is_given_back(layout: str) -> None:
    found = extracted(planted(in_three(drawn(formula)), formula, layout=layout, eval_tail=8))
    assert found.formula == "mean = 1 + 0.4 x1 - 0.3 x2 + 0.5 x1 x2"
    for name, true in (("1", 1.0), ("x1", 0.4), ("x2", -0.3), ("x1 x2", 0.5)):
        assert interval(found, f"coefficient {name}").value == pytest.approx(true, abs=1e-5)
    assert interval(found, "share of the variance of the mean").low > 0.9999
    kept = interval(found, f"share of {LINEAR} over {MARGINAL}")
    assert 0.99 < kept.low <= kept.value < 1.01
    assert interval(found, f"nll of {LINEAR}").value == pytest.approx(
        np.log(SIGMA) + 0.5 * np.log(2 * np.pi) + 0.5, abs=0.03
    )
    assert any("nothing to speak of is lacking" in sentence for sentence in found.says)


def test_noise_has_no_formula_and_no_share_of_a_gain() -> None:
    def noise(last: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        return 0.1 * torch.sin(1e4 * last + 7e3 * before)

    found = extracted(planted(in_three(drawn(lambda _last, _before: 0.0)), noise))
    assert found.formula == "mean = 1"
    assert abs(interval(found, "share of the variance of the mean").value) < 0.01
    assert np.isnan(interval(found, f"share of {LINEAR} over {MARGINAL}").value)
    assert "The winner is not surely ahead of the marginal" in found.says[1]
    assert "the formula is a constant" in found.says[3]


def test_a_gain_that_no_formula_keeps_is_said_to_be_one() -> None:
    """The next spacing is a sawtooth of the last one, so fast that no term of the dictionary follows it."""
    series = drawn(lambda last, _before: (997.0 * last) % 1.0, 0.01)
    found = extracted(planted(in_three(series), lambda last, _: torch.remainder(997.0 * last, 1.0), 0.02))
    assert interval(found, f"gain over {MARGINAL}").low > 1.0
    # A Gaussian is no match for the histogram of what is nearly uniform, and the share a little below nothing.
    assert -0.08 < interval(found, f"share of {LINEAR} over {MARGINAL}").value < 0.01
    assert "the formula keeps next to nothing" in found.says[1]


def test_a_constant_needs_a_width_and_no_term() -> None:
    """The winner's mean is 1, and its gain over the marginal the width's: nothing is lacking but the shape."""
    found = extracted(planted(in_three(drawn(lambda _last, _before: 0.0)), lambda last, _: 0.0 * last))
    assert found.formula == "mean = 1"
    rows = {row.words[0]: row.values[0] for row in found.tables[0].rows}
    assert rows[LINEAR] == pytest.approx(rows["the winner"], abs=0.01)
    assert rows[OWN] == pytest.approx(rows["the winner"], abs=0.01)


def test_what_is_told_is_whole() -> None:
    found = extracted(planted(in_three(drawn(formula)), formula))
    assert found.fitted_on == "val, 5088 targets"
    assert found.scored_on == "test, 5088 targets"
    for table in found.tables:
        assert all(len(row.words) + len(row.values) == len(table.header) for row in table.rows)
    densities = {row.words[0]: row.values for row in found.tables[0].rows}
    assert np.isnan(densities[MARGINAL][1].value)
    assert densities["the winner"][1].value == 1.0
    captions = " ".join(table.caption for table in found.tables)
    assert all(word in captions for word in ("densities", "formula", "prime", "amplitudes"))
    assert [plot.kind for plot in found.plots] == ["line", "line"]


def test_data_at_no_height_has_no_lines_and_a_formula_all_the_same() -> None:
    data = in_three(drawn(formula))
    parts = {name: replace(getattr(data, name), log_height=np.zeros(20)) for name in ("train", "val", "test")}
    found = extracted(planted(replace(data, **parts), formula))
    assert found.formula == "mean = 1 + 0.4 x1 - 0.3 x2 + 0.5 x1 x2"
    assert found.says[-1].startswith("The data's heights are not those of zeta zeros")
    assert (len(found.tables), len(found.plots)) == (2, 1)


def test_a_split_that_is_too_short_or_a_density_that_is_not_finite_has_no_formula() -> None:
    short = in_three(drawn(formula, num_blocks=60), (40, 10, 2))
    with pytest.raises(NoFormula, match="test: 480 predictions; a formula takes at least 512"):
        extracted(planted(short, formula))
    with pytest.raises(NoFormula, match="val: The model's density is not finite along the split"):
        extracted(planted(in_three(drawn(formula)), lambda last, _: last / 0.0))
