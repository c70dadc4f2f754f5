"""A family that nobody registered, in a module beside the plan: it has what a registered one has, and may lack it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tune_rh.cli.main import main
from tune_rh.results.own_reports import unit

pytestmark = pytest.mark.usefixtures("no_drawing")

ROOT = Path(__file__).parents[2]

MODULE = """
import hashlib
import math

import torch

from analysis.diagnose.api import Baseline, NoEvidence, answer, diagnostic
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
    spaces="my_package:SPACES", sample="my_package:sample", baselines="my_package:baselines",
    diagnostics="my_package:DIAGNOSTICS",
)


def suggest(trial):
    return {"lr": trial.suggest_float("lr", 1e-3, 0.3, log=True)}


SPACE = Space(suggest=suggest, base="base")
SPACES = {"rates": SPACE}


def sample(task):
    return torch.linspace(-1, 1, 5)[:, None]


def baselines(dataset, data_dir, *, split="test", config=None):
    return [Baseline("always zero", 3.75, "nothing fitted"), Baseline("the line itself", 0.0, "cannot be beaten")]


@diagnostic("How steep is the line?")
def slope(subject):
    out = subject.task.model(subject.sample).detach()
    steep = ((out[-1] - out[0]) / (subject.sample[-1] - subject.sample[0])).item()
    if math.isnan(steep):
        raise NoEvidence("There is no line.")
    return answer("pass", f"It rises by {steep:.2f}.", {"slope": steep}, {"slope": 3.0})


@diagnostic("How many were tried?", needs="records")
def tried(run):
    return answer("warn", f"There were {len(run.candidates)} candidates.", {"candidates": float(len(run.candidates))})


DIAGNOSTICS = (slope, tried)
"""
BARE = re.sub(r'    spaces="my.*?DIAGNOSTICS",\n', "", MODULE, flags=re.DOTALL)
"""As a family that has none of these."""

PLAN = """
name = "toy"
family = "my_package:FAMILY"
space = "rates"
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
    script = "import sys; sys.path.remove(''); from tune_rh.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, "search", "plan.toml", "--dry-run"],
        cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "my_package:FAMILY" in done.stdout


def test_it_has_all_that_a_registered_one_has(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "plan.toml", "--runner", "local"]) == 0
    out = capsys.readouterr().out
    assert "always zero" in out
    assert "of 2 baselines" in out
    root = place / "runs" / "toy"
    assert "| always zero |" in (root / "best" / "README.md").read_text()
    (found,) = {path.read_text().count('"slope"') > 0 for path in root.glob("members/*/findings.json")}
    assert found
    page = (root / "report" / "index.html").read_text()
    assert all(words in page for words in ("How steep is the line?", "How many were tried?", "always zero"))
    assert main(["diagnose", "toy"]) == 0
    out = capsys.readouterr().out
    assert "It rises by" in out
    assert "There were 3 candidates." in out
    assert main(["diagnose", "runs/toy/best", "--only", "slope"]) == 0
    assert main(["diagnose", "toy", "--only", "permutation"]) == 2
    assert "my_package:FAMILY has no such diagnostic; known: slope, tried" in " ".join(capsys.readouterr().err.split())
    assert main(["families", "my_package:FAMILY"]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "│ rates │ lr │ 0.001 to 0.3, log │ │" in rows
    assert "│ fast │ lr=0.2 │ 2 │" in rows


def test_a_preset_or_a_space_that_fails_is_told_in_its_row(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = MODULE.replace('"fast": {"lr": 0.2}', '"fast": {"lr": "quick"}').replace(
        "1e-3, 0.3, log", "1e-3, 0.3, lag"
    )
    (place / "my_package.py").write_text(broken)
    assert main(["families", "my_package:FAMILY"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "lr=quick │ wrong: lr = 'quick': Input should be a valid number" in out
    assert "fails: TypeError" in out


def test_its_diagnostics_may_be_required(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "plan.toml", "--dry-run", "--set", 'require = ["tried"]'.replace(" = ", "=")]) == 2
    assert "require: 'tried' is no diagnostic of my_package:FAMILY; known: slope" in capsys.readouterr().err
    assert main(["search", "plan.toml", "--dry-run", "--set", 'require=["slope"]']) == 0


def laws(place: Path, *words: str) -> str:
    """What pytest says of the family under `tune_rh.testing`, in a process of its own."""
    (place / "test_mine.py").write_text(
        "from tune_rh.testing import FamilyConformance\n\n\n"
        'class TestMine(FamilyConformance):\n    family = "my_package:FAMILY"\n    preset = "base"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py", *words],
        cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def test_the_laws_of_a_family_hold_for_it(place: Path) -> None:
    out = laws(place)
    # It says nothing of a past, and its config has no accumulation.
    assert re.search(r"^\d+ passed, 2 skipped in ", out, re.MULTILINE), out


def test_a_law_that_does_not_hold_is_named(place: Path) -> None:
    forgets = MODULE.replace('self.draws.set_state(state["rng"])', "pass")
    assert forgets != MODULE
    (place / "my_package.py").write_text(forgets)
    lines = laws(place, "-k", "task or seed or step").splitlines()
    failed = [line.rpartition("::")[2].partition(" ")[0] for line in lines if line.startswith("FAILED")]
    assert failed == ["test_state_of_step_k_continues_bit_for_bit_in_a_task_of_another_seed"]


def test_search_export_load_and_what_there_is_not(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "my_package.py").write_text(BARE)
    assert main(["search", "plan.toml", "--runner", "local"]) == 2
    assert "family 'my_package:FAMILY' has no spaces; give 'module:attr'" in " ".join(capsys.readouterr().err.split())
    assert main(["search", "plan.toml", "--runner", "local", "--set", "space=my_package:SPACE"]) == 0
    card = (place / "runs" / "toy" / "best" / "README.md").read_text()
    assert "trainables/my_package" not in card
    assert "`my_package`, which must be importable" in card
    import trainables

    assert trainables.load(place / "runs" / "toy" / "best").weight.shape == (1, 1)
    assert unit("my_package:FAMILY") == ""  # the objective is a plain number
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
        ("my_package:baselines", "nowhere:bases", "baselines = 'nowhere:bases': cannot be imported"),
        (
            "DIAGNOSTICS = (slope, ",
            "DIAGNOSTICS = (suggest, ",
            "diagnostics = 'my_package:DIAGNOSTICS': <function",
        ),
        ('SPACES = {"rates": SPACE}', 'SPACES = ["rates"]', "spaces = 'my_package:SPACES': is no mapping of names to"),
        ("my_package:DIAGNOSTICS", "my_package:ASKED", "diagnostics = 'my_package:ASKED': cannot be imported"),
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
