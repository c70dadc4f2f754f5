"""Plots of findings, drawn whatever values they hold."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from analysis.diagnose.api import Plot, Series
from analysis.reports.plots import draw


@pytest.mark.parametrize("kind", ["line", "bar", "points", "heat"])
@pytest.mark.parametrize("values", [(), (float("nan"),) * 3, (1.0, float("nan"), 3.0), (1.0, 10.0, 1000.0)])
def test_any_plot_can_be_drawn(kind: Any, values: tuple[float, ...]) -> None:
    x = tuple(range(len(values)))
    series = (Series("one", x, values, values, values), Series("other", x, values)) if values else ()
    grid = (values, values) if values else ()
    logarithmic = kind != "heat" and values == (1.0, 10.0, 1000.0)
    plot = Plot(
        "T <&> $x$", "x", "y", kind, series, grid, {"limit": 2.0}, ("a", "b", "c")[: len(values)], log_y=logarithmic
    )
    picture = draw(plot)
    text = "".join(ElementTree.fromstring(picture.markup).itertext())
    assert "T <&> $x$" in text
    assert "mathdefault" not in text
    assert ("nothing finite to show" in text) == (not any(v == v for v in values))
