"""Two runs on one page: which best is ahead over common seeds, and what the plans and the configs differ in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.reports.report_files import Page
from tests.analysis.reports.test_report_html import STAGES, losses
from tests.analysis.run_folders import simulate
from tests.browser import CHROMIUM, browser
from tune_rh.cli.main import main
from tune_rh.errors import RunError
from tune_rh.record.journal import RunPaths
from tune_rh.results.reading import read
from tune_rh.results.reporting import write_versus


def better(index: int, seed: int, step: int) -> dict[str, float]:
    """As `losses`, a quarter lower."""
    return {**losses(index, seed, step), "val_loss": losses(index, seed, step)["val_loss"] - 0.25}


def compared(folder: Path, **changes: Any) -> Page:
    """A with `losses` against B with `better` and the changes."""
    simulate(folder / "a", losses, num_candidates=5, stages=STAGES)
    simulate(folder / "b", better, **{"num_candidates": 6, "stages": STAGES, **changes})
    return Page(write_versus(*(read(RunPaths(folder / name)) for name in "ab")))


def test_the_better_best_is_named_with_its_lead_over_common_seeds(tmp_path: Path) -> None:
    page = compared(tmp_path)
    # Seeds shift all alike: the lead is a quarter in each pair.
    assert "The best of b is ahead by 0.250 nats (95% interval 0.250 to 0.250, 3 seeds in pairs)." in page.words
    assert "a claim takes tune-rh ab" in page.words
    sides = {row[0]: row[1:] for row in page.tables[0]}
    assert sides["candidates"] == ["6", "7"]
    assert sides["funnel"][0].startswith("5 → ")
    assert float(sides["val_loss"][0].split()[0]) == pytest.approx(float(sides["val_loss"][1].split()[0]) + 0.25)
    plans = next(table for table in page.tables[1:] if ["num_candidates", "5", "6"] in table)
    assert {row[0] for row in plans[1:]} == {"num_candidates"}


def test_higher_is_better_where_the_plan_says_so(tmp_path: Path) -> None:
    for name, level in (("a", 0.9), ("b", 0.8)):
        simulate(
            tmp_path / name, lambda *of, level=level: {"val_loss": level, "health": 1.0}, mode="max", stages=STAGES
        )
    page = Page(write_versus(*(read(RunPaths(tmp_path / name)) for name in "ab")))
    assert "The best of a is ahead by 0.100 nats" in page.words


def test_other_data_and_other_seeds_are_said(tmp_path: Path) -> None:
    page = compared(tmp_path, seeds=[1, 2, 3])
    assert "they have no seed in common" in page.words
    for name in "ab":
        (tmp_path / name / "provenance.json").write_text(json.dumps({"data": {"sha256": name}}))
    page = Page(write_versus(*(read(RunPaths(tmp_path / name)) for name in "ab")))
    assert "They were trained on different data" in page.words


def test_a_run_without_a_score_is_named(tmp_path: Path) -> None:
    fates = {(index, seed): ("diverge", 10) for index in range(7) for seed in (7, 42, 1337)}
    assert "no candidate of b has a score" in compared(tmp_path, fates=fates).words


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    simulate(tmp_path / "a", losses, num_candidates=2, stages=STAGES)
    simulate(tmp_path / "b", losses, num_candidates=2, stages=STAGES, mode="max")
    with pytest.raises(RunError, match="a and b cannot be compared: mode is 'min' in one and 'max' in the other"):
        write_versus(*(read(RunPaths(tmp_path / name)) for name in "ab"))


def test_the_command_writes_beside_the_first_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        simulate(tmp_path / name, losses, num_candidates=2, stages=STAGES)
    assert main(["report", "a", "b", "--runs-dir", str(tmp_path)]) == 0
    assert str(tmp_path / "a" / "report" / "against-b.html") in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "a" / "report").iterdir()] == ["against-b.html"]
    assert not (tmp_path / "b" / "report").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_its_charts_are_drawn(tmp_path: Path) -> None:
    compared(tmp_path)

    async def look() -> None:
        async with browser() as tab:
            await tab.open((tmp_path / "a" / "report" / "against-b.html").as_uri())
            # The best and the control of each run, and what each had found.
            assert await tab.value("document.querySelectorAll('#curves-chart g path[fill=none]').length") == 4
            assert await tab.value("document.querySelectorAll('#quality-chart g path[fill=none]').length") == 2
            assert tab.said == []

    asyncio.run(look())
