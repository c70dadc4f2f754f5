"""The examples hold what a search relies on, and find something."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import tune_rh

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.usefixtures("no_drawing")
def test_digits_are_sound_and_searched(tmp_path: Path) -> None:
    names = runpy.run_path(str(EXAMPLES / "digits.py"))
    told = {"space": names["suggest"], "base": {"lr": 0.05, "width": 8, "momentum": 0.9}, "objective": "val_acc"}
    assert tune_rh.check(names["Digits"], mode="max", data_dir=tmp_path, **told) == []
    run = tune_rh.search(
        names["Digits"], mode="max", stages=[(60, 1), (120, 1)], candidates=2, runner="local", trial=False,
        runs_dir=tmp_path / "runs", data_dir=tmp_path, **told,
    )  # fmt: skip
    assert run.root.name == "Digits"
    assert run.best is not None
    assert run.best.val > 0.8
    assert run.best.config.keys() == told["base"].keys()
    assert run.best.load().evaluate("val")["val_acc"] >= run.best.val - 1e-6
