"""A search over objects of Python: nothing of them lies in a module that another process could import."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

pytestmark = pytest.mark.timeout(300)  # several processes, each of which imports torch

SCRIPT = '''
import tune_rh
import torch

SCALE = 2.0

class Line:
    """Fits y = 2 x by gradient descent."""

    def __init__(self, config, *, seed, device, data_dir):
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        self.model = torch.nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.model.weight.copy_(torch.randn(1, 1, generator=generator))

    def step(self):
        slope = self.model.weight.item() - SCALE
        with torch.no_grad():
            self.model.weight -= self.config["lr"] * slope
        return {"train_loss": slope * slope}

    def evaluate(self, split):
        return {"val_acc" if split == "val" else "test_acc": 1 / (1 + abs(self.model.weight.item() - SCALE))}

    def state_dict(self):
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])

suggest = lambda trial: {"lr": trial.suggest_float("lr", 1e-3, 0.5, log=True)}

if __name__ == "__main__":
    run = tune_rh.search(Line, space=suggest, base=dict(lr=.05), objective="val_acc", mode="max",
                         stages=[(10, 1), (20, 2)], candidates=4, name="line", runner=RUNNER)
    best = run.best
    task = best.load()
    assert type(task) is Line
    print(best.candidate, best.val, task.evaluate("val")["val_acc"], len(run.candidates), len(run.curves))
    print(run.report())
'''
IMPORTED = """
import tune_rh
import mine
run = tune_rh.search(mine.Line, space=mine.suggest, base=dict(lr=.05), objective="val_acc", mode="max",
                     stages=[(10, 1)], candidates=2, name="line", runner="local")
"""
RESUMED = """
import tune_rh
from tune_rh.errors import PreflightRefused
try:
    tune_rh.resume("line", overrides=["num_candidates=4"], runner="local")
except PreflightRefused as error:
    print(error)
    run = tune_rh.resume("line", overrides=["num_candidates=4"], runner="local", accept=["code"])
    print(len(run.candidates), run.provenance["source"]["file"], run.provenance["source"]["git"])
"""
AGAIN = """
import tune_rh
run = tune_rh.load("line")
best = run.best
print(best.candidate, best.val, best.load().evaluate("val")["val_acc"], len(run.candidates), len(run.curves))
resumed = tune_rh.resume("line", overrides=["num_candidates=6"], runner="local")
print(len(resumed.candidates), resumed.run.ended)
"""


def python(folder: Path, text: str, *, script: bool = True, words: tuple[str, ...] = ("-",)) -> str:
    """What a script says, run in a folder of its own; ``script`` False: typed in, without a file."""
    words = ("task.py",) if script else words
    if script:
        (folder / "task.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, input=text, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", [True, False], ids=["script", "typed"])
def test_a_class_of_main_is_searched_loaded_resumed_and_written_out(tmp_path: Path, script: bool) -> None:
    said = python(tmp_path, SCRIPT.replace("RUNNER", "'local'"), script=script).splitlines()
    candidate, val, loaded, num_candidates, num_curves = said[0].split()
    assert candidate.startswith("c0")
    assert 0.5 < float(val) <= 1
    assert float(loaded) >= float(val) - 1e-6
    assert num_candidates == "5"
    assert int(num_curves) > 5
    assert Path(said[1]).is_file()
    (tmp_path / "task.py").unlink(missing_ok=True)
    again = python(tmp_path, AGAIN, script=False).splitlines()
    assert again[0] == said[0]
    assert again[1] == "7 finished"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("script", [True, False], ids=["script", "prompt"])
def test_a_class_of_main_is_searched_on_ray(tmp_path: Path, script: bool) -> None:
    text = SCRIPT.replace(", runner=RUNNER", "")
    if not script:  # at a prompt an empty line ends a class
        above, _, below = text.partition('if __name__ == "__main__":\n')
        text = above.replace("\n\n    ", "\n    ") + dedent(below)
    found, report = python(tmp_path, text, script=script, words=("-i",)).splitlines()[-2:]
    candidate, val, _, num_candidates, num_curves = found.split()
    assert (candidate[:2], num_candidates) == ("c0", "5")
    assert 0.5 < float(val) <= 1
    assert int(num_curves) > 5
    assert Path(report).is_file()


def test_what_ran_is_written_out_as_a_plan_that_runs(tmp_path: Path) -> None:
    python(tmp_path, SCRIPT.replace("RUNNER", "'local'"))
    python(tmp_path, 'import tune_rh; tune_rh.load("line").write_plan("plans/line.toml")', script=False)
    words = ["-m", "tune_rh", "search", "plans/line.toml", "--name", "again", "--runner", "local"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "again" / "best" / "export.json").is_file()


def test_a_change_of_an_imported_source_is_named_and_accepted_as_code(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT.partition("if __name__")[0])
    python(tmp_path, IMPORTED)
    (tmp_path / "mine.py").write_text(SCRIPT.partition("if __name__")[0] + "# another thought\n")
    said = python(tmp_path, RESUMED).splitlines()
    assert said[0].startswith("P47 source mine: was ")
    assert said[-1] == f"5 {tmp_path / 'mine.py'} None"


def test_a_payload_that_was_changed_is_not_unpickled(tmp_path: Path) -> None:
    python(tmp_path, SCRIPT.replace("RUNNER", "'local'"))
    (payload,) = (tmp_path / "runs" / "line").glob("given_*.pkl")
    payload.write_bytes(payload.read_bytes().replace(b"train_loss", b"train_lose"))
    said = python(
        tmp_path,
        """
import tune_rh
try:
    tune_rh.resume("line", runner="local", overrides=["num_candidates=6"])
except Exception as error:
    print(type(error).__name__, error)
""",
        script=False,
    )
    assert "was changed: its digest is that of" in said


def test_a_payload_of_somebody_else_is_not_unpickled(tmp_path: Path) -> None:
    python(tmp_path, SCRIPT.replace("RUNNER", "'local'"))
    run = tmp_path / "runs" / "line"
    (payload,) = run.glob("given_*.pkl")
    signed, _, rest = payload.read_bytes().partition(b"\n")
    assert len(signed) == 64
    payload.write_bytes(b"0" * 64 + b"\n" + rest)
    provenance = run / "provenance.json"
    provenance.write_text(re.sub('"signature": "[0-9a-f]+"', '"signature": "0"', provenance.read_text()))
    said = python(
        tmp_path,
        """
import tune_rh
from trainables.errors import Untrusted
try:
    tune_rh.load("line").best.load()
except Untrusted as error:
    print(error)
""",
        script=False,
    )
    assert f"--trust {payload.stem}" in said


BROKEN = """
import tune_rh
from tune_rh.errors import TaskFailed, PlanError

def search():
    tune_rh.search(Broken, space=suggest, base=dict(lr=.05), objective="val_acc", mode="max",
                   stages=[(10, 1), (20, 2)], candidates=3, name="line", runner="local")

class Broken(Line):
    num_steps = 0
    def step(self):
        self.num_steps += 1
        if self.num_steps == 7:
            moment = self.momentum
        return super().step()
    def state_dict(self):
        return {**super().state_dict(), "num_steps": self.num_steps}
    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.num_steps = state["num_steps"]

try:
    search()
except TaskFailed as error:
    print(error)

class Lacks:
    def __init__(self, config, *, seed, device, data_dir):
        pass

try:
    tune_rh.resume("line", task=Lacks, runner="local")
except PlanError as error:
    print(error)
run = tune_rh.resume("line", task=Line, runner="local")
print(run.run.ended, len(run.candidates), type(run.best.load()).__name__)
print(type(tune_rh.load("line").best.load()).__name__)
"""


def test_a_mistake_in_what_was_typed_costs_one_try_and_the_mended_class_goes_on(tmp_path: Path) -> None:
    said = python(tmp_path, SCRIPT.partition("if __name__")[0] + BROKEN).splitlines()
    assert re.match(r"run 'line' has stopped at AttributeError: .*'momentum' \(.*task\.py:\d+\)$", said[0])
    assert said[1].endswith('task.py", line ' + said[0].rpartition(":")[2].rstrip(")") + ", in step")
    assert said[2] == "    moment = self.momentum"
    assert said[3].endswith("Mend it, then: tune_rh.resume('line', task=Broken)")
    assert said[4].startswith("Lacks: has no method step, evaluate, state_dict, load_state_dict")
    assert said[5:] == ["finished 4 Line", "Line"]
