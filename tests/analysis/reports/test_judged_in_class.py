"""A win is judged against baselines that know no more: on the page, and on the terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analysis.diagnose.api import Baseline
from analysis.reports.page import words
from analysis.reports.page.embedded import embedded
from analysis.reports.page.facts import gather
from analysis.reports.page.tables import candidates_table
from analysis.tables import RunTables
from tests.analysis.run_folders import simulate
from tests.worlds.scripted import curve
from trainables.spacing_mdn.config import known
from tune_rh.api import load
from tune_rh.cli.tables import baselines_line

ROWS = [
    Baseline("filter", -0.6, "", known("I", 64)),
    Baseline("lines", -1.4, "", known("II", 256)),
    Baseline("long lines", -2.4, "", known("II", 1024)),
    Baseline("exact", -2.9, "", known("III", 33)),
]


def facts() -> Any:
    return SimpleNamespace(baselines=ROWS, baselines_note="", unit="", places=3, run=SimpleNamespace(sign=1.0))


def best(test: float, std: float = 0.001) -> Any:
    knowledge = known("II", 256)
    return SimpleNamespace(candidate="c0001", test=test, test_std=std, num_tested=3, num_seeds=3, knowledge=knowledge)


def test_a_winner_of_its_class_says_so_and_what_lies_above() -> None:
    said = words._beaten(facts(), best(-1.8))
    assert "beats all 2 baselines of its class (class II, past 256)." in said
    assert "2 baselines know more" in said
    assert "exact (class III, past 33), has -2.900." in said
    line = baselines_line(ROWS, [], best(-1.8))
    assert line == (
        "On test c0001 beats 2 of 2 baselines of its class (class II, past 256). Of 2 that know more it beats 0."
    )


@pytest.mark.parametrize(
    ("test", "std", "what"), [(-1.0, 0.001, "worse than lines"), (-1.4, 0.5, "too close to tell from")]
)
def test_one_that_does_not_beat_its_class_says_which_it_does_not(test: float, std: float, what: str) -> None:
    said = words._beaten(facts(), best(test, std))
    assert "beats all" not in said
    assert what in said
    assert "of its class (class II, past 256)" in said


@pytest.mark.parametrize("knows", [False, True])
def test_axes_of_the_page_read_the_columns_that_they_are_named_after(tmp_path: Path, knows: bool) -> None:
    simulate(tmp_path / "run", curve, num_candidates=3)
    run = load(tmp_path / "run").run
    candidates = {
        name: replace(
            candidate,
            params={"lr": 0.1, "width": 8},
            knowledge=known("I", 256) if knows and name != "c0000" else None,
        )
        for name, candidate in run.candidates.items()
    }
    facts = gather(RunTables(replace(run, candidates=candidates)), "finished")
    data, header = json.loads(embedded(facts)), candidates_table(facts).header
    assert ("may know" in header) is knows
    assert header[data["columns"]["step"]] == "at step"
    assert header[data["columns"]["score"]] == facts.run.objective
    assert [(axis["name"], header[axis["column"]]) for axis in data["axes"]] == [("lr", "lr"), ("width", "width")]
    assert all(len(row) == len(header) for row in candidates_table(facts).rows)
