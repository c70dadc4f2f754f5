"""Diagnostics and baselines of a user's own, on a task that was given in Python and in a family's module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tune_rh
from analysis.diagnose.api import Finding, NoEvidence
from tune_rh.errors import PlanError


class Line:
    """Fits y = 2 x by gradient descent."""

    def __init__(self, config: dict[str, Any], *, seed: int, device: str, data_dir: Path) -> None:
        self.config = config
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(self.model.weight, float(seed))

    def step(self) -> dict[str, float]:
        slope = self.model.weight.item() - 2.0
        with torch.no_grad():
            self.model.weight -= self.config["lr"] * slope
        return {"train_loss": slope * slope}

    def evaluate(self, split: str = "val") -> dict[str, float]:
        return {f"{split}_loss": abs(self.model.weight.item() - 2.0)}

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])


def suggest(trial: Any) -> dict[str, float]:
    return {"lr": trial.suggest_float("lr", 0.01, 0.5, log=True)}


@tune_rh.diagnostic("Has the slope come near to 2?")
def near(subject: Any) -> Finding:
    """With a value and a threshold."""
    assert type(subject.task) is Line
    away = abs(subject.task.model.weight.item() - 2.0)
    return tune_rh.answer("pass" if away < 10 else "fail", f"it is {away:.2f} away", {"away": away}, {"away": 10.0})


def is_positive(subject: Any) -> bool:
    """The slope is positive."""
    return bool(subject.task.model.weight.item() > 0)


def flat(data_dir: Path) -> float:
    """A line without a slope."""
    return 2.0


@tune_rh.baseline
def by_split(split: str, dataset: str) -> float:
    return 1e-6 if split == "test" else 0.0


def search(tmp_path: Path, **options: Any) -> Any:
    fields: dict[str, Any] = {
        "space": suggest, "base": {"lr": 0.1}, "objective": "val_loss", "stages": [(4, 1), (8, 1)], "candidates": 2,
        "runs_dir": tmp_path, "runner": "local", "name": "line", **options,
    }  # fmt: skip
    return tune_rh.search(Line, **fields)


def test_own_diagnostics_and_baselines_stand_on_the_page(tmp_path: Path) -> None:
    run = search(tmp_path, diagnostics=[near, is_positive], baselines=[flat, by_split])
    assert run.run.plan["diagnose"] == ["near", "is_positive"]
    diagnosed = [member.verdicts for member in run.run.members.values() if member.verdicts]
    assert diagnosed
    assert all(verdicts == {"near": "pass", "is_positive": "pass"} for verdicts in diagnosed)
    page = Path(run.report()).read_text(encoding="utf-8")
    for text in ("Has the slope come near to 2?", "The slope is positive", "A line without a slope", "by split"):
        assert text in page


def test_a_run_without_any_is_not_told_to_run_them(tmp_path: Path) -> None:
    page = Path(search(tmp_path).report()).read_text(encoding="utf-8")
    assert "tune-rh diagnose" not in page


def test_one_may_be_required(tmp_path: Path) -> None:
    def never(subject: Any) -> bool:
        return False

    run = search(tmp_path, diagnostics=[never], require=["never"])
    assert run.best is None
    assert {"never": "fail"} in [member.verdicts for member in run.run.members.values()]


def test_what_a_function_returns_is_a_finding() -> None:
    assert tune_rh.diagnostic(is_positive).title == "The slope is positive"
    assert tune_rh.diagnostic("x", name="other")(is_positive).name == "other"

    def nothing(subject: Any) -> bool:
        raise NoEvidence("no data")

    assert tune_rh.diagnostic(nothing)(None) == Finding("nothing", "no_evidence", "no data")
    assert tune_rh.diagnostic(lambda _subject: True)(None).verdict == "pass"
    with pytest.raises(TypeError, match="returns a str: allowed are a bool and an answer"):
        tune_rh.diagnostic(lambda _subject: "good")(None)  # type: ignore[arg-type, return-value]


def test_a_baseline_is_called_with_what_it_names() -> None:
    (row,) = by_split("d", Path())
    assert (row.name, row.value, row.note) == ("by split", 1e-6, "")
    (row,) = tune_rh.baseline(flat)("d", Path(), config={})
    assert (row.name, row.value, row.note) == ("flat", 2.0, "A line without a slope")
    with pytest.raises(TypeError, match="returns a str: allowed is a number"):
        tune_rh.baseline(lambda: "2")("d", Path())  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"diagnostics": near}, r"diagnostics = .*allowed is a list of functions"),
        ({"diagnostics": [3]}, r"diagnostics\[0\] = 3: allowed is a function"),
        ({"diagnostics": [is_positive, is_positive]}, "diagnostics: two are called 'is_positive'"),
        ({"baselines": [flat, 1.0]}, r"baselines\[1\] = 1.0: allowed is a function"),
    ],
)
def test_what_is_no_function_is_refused_by_name(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        search(tmp_path, **options)
