"""A search that beats its control and not what it should be compared with says so on the first screen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analysis.reports import search
from tests.analysis.run_folders import simulate
from tests.test_report_html import STAGES

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
    search.write(tmp_path / "run")
    first = (tmp_path / "run" / "report" / "report.md").read_text().partition("## ")[0]
    assert re.search(r"\*\*Best\*\*: c0002", first)
    assert re.search(said, first)
    doubt = "What the plan compares it with is at least as good in the mean: c0001."
    assert (doubt in first) == (level < 0.9)
