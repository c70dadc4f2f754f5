"""A family that nobody registered, in a module beside the plan: searched, exported, loaded; and what one may lack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tune_rh.cli import main

ROOT = Path(__file__).parents[1]

MODULE = """
import hashlib

import torch

from search_spaces.api import Space
from trainables.api import Family, Metric
from trainables.config import FrozenConfig


class Config(FrozenConfig):
    data: str = "toy"
    lr: float = 0.1


def build(config):
    return torch.nn.Linear(1, 1)


class Task:
    def __init__(self, config, *, seed, device, data_dir):
        self.draws = torch.Generator().manual_seed(seed)
        self.model = build(config)
        for weight in self.model.parameters():
            torch.nn.init.normal_(weight, generator=self.draws)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=config.lr)

    def loss(self, x):
        return ((self.model(x) - 3 * x) ** 2).mean()

    def step(self):
        loss = self.loss(torch.randn(8, 1, generator=self.draws))
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"train_loss": loss.item()}

    def evaluate(self, split="val"):
        with torch.no_grad():
            shift = 0.5 if split == "test" else 0.0
            return {f"{split}_loss": self.loss(torch.linspace(-1, 1, 9)[:, None] + shift).item()}

    def state_dict(self):
        optimiser, rng = self.optimiser.state_dict(), self.draws.get_state()
        return {"model": self.model.state_dict(), "optimiser": optimiser, "rng": rng}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.draws.set_state(state["rng"])


class Data:
    names = ("toy",)

    def prepare(self, name, data_dir, progress=None):
        return data_dir

    def digest(self, name, data_dir):
        return hashlib.sha256(name.encode()).hexdigest()


DATA = Data()
LOSS = Metric("val_loss", "min", "1", "mean squared error")
FAMILY = Family(
    name="toy", summary="a line", config="my_package:Config", model="my_package:build", task="my_package:Task",
    data="my_package:DATA", objective=LOSS, metrics=(LOSS, Metric("train_loss", "min", "1", "the same")),
    presets={"base": {}, "fast": {"lr": 0.2}},
)


def suggest(trial):
    return {"lr": trial.suggest_float("lr", 1e-3, 0.3, log=True)}


SPACE = Space(suggest=suggest, base="base")
"""

PLAN = """
name = "toy"
family = "my_package:FAMILY"
space = "my_package:SPACE"
control = "base"
num_candidates = 2
seeds = [7, 42]
eval_every = 5

[[stages]]
until_step = 5
num_seeds = 1

[[stages]]
until_step = 10
num_seeds = 2
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: plan and module, which no earlier test has left imported."""
    (tmp_path / "my_package.py").write_text(MODULE)
    (tmp_path / "plan.toml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_package", raising=False)
    return tmp_path


def test_the_installed_command_finds_it_where_it_is_typed(place: Path) -> None:
    """Unlike ``python -m``, a script has the folder of the script on its path, not the working folder."""
    script = "import sys; sys.path.remove(''); from tune_rh.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, "search", "plan.toml", "--dry-run"],
        cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "my_package:FAMILY" in done.stdout


def test_search_export_load_and_what_there_is_not(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "plan.toml", "--runner", "local"]) == 0
    card = (place / "runs" / "toy" / "best" / "README.md").read_text()
    assert "trainables/my_package" not in card
    assert "`my_package`, which must be importable" in card
    import trainables

    assert trainables.load(place / "runs" / "toy" / "best").weight.shape == (1, 1)
    assert main(["families", "my_package:FAMILY"]) == 0
    assert "Spaces" not in capsys.readouterr().out
    assert main(["diagnose", "toy"]) == 2
    assert "'my_package:FAMILY' has no diagnostics" in capsys.readouterr().err
    assert main(["diagnose", "runs/toy/best"]) == 2
    assert not list(place.rglob("findings.json"))


@pytest.mark.parametrize(
    ("was", "lacks", "said"),
    [
        ("class Config(FrozenConfig)", "class Config", "config = 'my_package:Config': is no trainables.config.Frozen"),
        ('data: str = "toy"', 'corpus: str = "toy"', "config = 'my_package:Config': has no field data"),
        ("my_package:Task", "my_package:Tusk", "task = 'my_package:Tusk': cannot be imported"),
        ("my_package:build", "nowhere:build", "model = 'nowhere:build': cannot be imported"),
        (
            "metrics=(LOSS, ",
            "metrics=(Metric('other', 'min', '1', ''), ",
            "objective 'val_loss' is not among its metrics",
        ),
    ],
)
def test_what_it_lacks_is_said_before_anything_starts(
    place: Path, was: str, lacks: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert was in MODULE
    (place / "my_package.py").write_text(MODULE.replace(was, lacks))
    assert main(["search", "plan.toml", "--runner", "local"]) == 2
    assert f"family my_package:FAMILY: {said}" in capsys.readouterr().err
    assert not (place / "runs").exists()
