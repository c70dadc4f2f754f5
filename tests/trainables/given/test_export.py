"""What a search over a task given in Python exports: all of its state, for only the task knows what is its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import trainables
import tune_rh
from analysis.diagnose.subject import open_export
from trainables.errors import CheckpointCorrupt
from trainables.worker.exported import evaluate

pytestmark = pytest.mark.usefixtures("no_drawing")


class Mean:
    """Learns the mean of 1 to 9; it has no torch model."""

    def __init__(self, config: dict[str, Any], *, seed: int, device: str, data_dir: Path) -> None:
        self.config, self.guess, self.position = config, float(seed), 0

    def step(self) -> dict[str, float]:
        self.position = self.position % 9 + 1
        error = self.position - self.guess
        self.guess += self.config["rate"] * error
        return {"train_loss": error * error}

    def evaluate(self, split: str) -> dict[str, float]:
        return {f"{split}_score": -abs(self.guess - (5.0 if split == "val" else 5.5))}

    def state_dict(self) -> dict[str, Any]:
        return {"guess": self.guess, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.guess, self.position = state["guess"], state["position"]


def searched(folder: Path) -> tune_rh.Run:
    return tune_rh.search(
        Mean, space=lambda trial: {"rate": trial.suggest_float("rate", 0.01, 0.5)}, base={"rate": 0.1},
        objective="val_score", mode="max", stages=[(10, 1), (20, 2)], candidates=2, name="mean", runner="local",
        runs_dir=folder / "runs", data_dir=folder,
    )  # fmt: skip


def test_a_task_without_a_model_is_exported_whole_and_comes_back_itself(tmp_path: Path) -> None:
    run = searched(tmp_path)
    assert run.best is not None
    folder = run.export(tmp_path / "best")
    task = trainables.load(folder)
    assert type(task) is Mean
    assert task.evaluate("val")["val_score"] == run.best.load().evaluate("val")["val_score"]
    assert evaluate(folder, "test") == task.evaluate("test") == open_export(folder, tmp_path).task.evaluate("test")
    card = (folder / "README.md").read_text()
    assert card.startswith("# Mean: c0")
    assert "The class `Mean`, which `given_" in card
    (folder / "state.pt").write_bytes(b"")
    with pytest.raises(CheckpointCorrupt, match=r"state\.pt: is not what was exported"):
        trainables.load(folder)


def test_a_check_finds_what_the_state_leaves_out(tmp_path: Path) -> None:
    class Forgets(Mean):
        def state_dict(self) -> dict[str, Any]:
            return {"guess": self.guess}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.guess = state["guess"]

    told = {"base": {"rate": 0.1}, "objective": "val_score", "mode": "max", "data_dir": tmp_path}
    assert tune_rh.check(Mean, **told) == []
    (found,) = tune_rh.check(Forgets, **told)
    assert str(found).startswith(
        "T05 task.load_state_dict(): a task of another seed does not go on bit for bit (step 3['tr"
    )
    assert str(found).endswith("state_dict() leaves out what differs in the two: self.position is 2, then 1")
