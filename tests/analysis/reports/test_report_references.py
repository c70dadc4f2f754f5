"""A search that beats its control and not what it should be compared with says so on the first screen."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from analysis.diagnose.api import Baseline, Plot, Series
from analysis.reports.plots import draw
from tests.analysis.reports.test_report_html import STAGES
from tests.analysis.run_folders import simulate, write_page

pytestmark = pytest.mark.usefixtures("no_drawing")

CONTROL, REFERENCE = 0, 1


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (0.7, r"The reference c0001 is ahead of it by 0\.2\d* \(95% interval 0\.2\d* to 0\.2\d*, 3 seeds"),
        (1.4, r"It is ahead of the reference c0001 by 0\.5\d* \(95% interval 0\.5\d* to 0\.5\d*, 3 seeds"),
    ],
)
def test_how_the_best_stands_to_a_reference(tmp_path: Path, level: float, said: str) -> None:
    levels = {CONTROL: 1.5, REFERENCE: level, 2: 0.9}

    def losses(index: int, seed: int, step: int) -> dict[str, float]:
        loss = levels.get(index, 1.2) + 0.01 * (seed % 3) + 1.0 / step
        return {"val_loss": loss, "test_loss": loss + 0.01, "train_loss": loss}

    simulate(tmp_path / "run", losses, num_candidates=4, references=["good"], stages=STAGES)
    write_page(tmp_path / "run")
    first = (tmp_path / "run" / "report" / "report.md").read_text().partition("## ")[0]
    assert re.search(r"\*\*Best\*\*: c0002", first)
    assert re.search(said, first)
    doubt = "What the plan compares it with is at least as good in the mean: c0001."
    assert (doubt in first) == (level < 0.9)


@pytest.mark.drawn
def test_a_reference_stands_among_the_baselines_in_table_and_figure(tmp_path: Path) -> None:
    def losses(index: int, seed: int, step: int) -> dict[str, float]:
        return {"val_loss": 1.0 + index + 0.1 * (seed % 3), "test_loss": 1.0 + index + 0.1 * (seed % 3)}

    simulate(tmp_path / "run", losses, num_candidates=2, references=["good"], stages=STAGES[-1:])
    page = write_page(tmp_path / "run", baselines=[Baseline("guess", 9.0, "")]).read_text()
    assert "control (square) and references (triangles)" in page or "best (diamond) and references (triangles)" in page
    figure = page[page.index("<svg") : page.index("</svg>")]
    text = (tmp_path / "run" / "report" / "report.md").read_text()
    for whose in ("c0000", "c0001"):
        assert whose in figure
    assert "this run's reference, 3 seeds" in text
    assert "control and references left out" in page


@pytest.mark.drawn
def test_small_numbers_on_a_logarithmic_axis_are_plain() -> None:
    plot = Plot("T", "x", "y", "line", (Series("one", (0.05, 0.2, 0.6), (1.0, 2.0, 3.0)),), log_x=True)
    text = list(ElementTree.fromstring(draw(plot).markup).itertext())
    assert "0.2" in text
    assert not [word for word in text if re.search(r"\de[-+]?\d", word)]
