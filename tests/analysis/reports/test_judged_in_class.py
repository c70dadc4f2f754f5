"""A win is judged against baselines that know no more: on the page, and on the terminal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from analysis.diagnose.api import Baseline
from analysis.reports.page import words
from trainables.spacing_mdn.config import known
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
