"""Each adapter's example, searched for a little; and whole, where the wheel is installed, killed and resumed."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

import tune_rh

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "sgd": ("sklearn",),
    "loader": ("sklearn",),
    "lightning_digits": ("lightning", "sklearn"),
    "gpt2": ("transformers", "accelerate"),
}
KILLED = """
import os, runpy, signal, sys
import tune_rh
from tune_rh.record.events import Evaluated

num, search = 0, tune_rh.search

def kill(event, history):
    global num
    num += isinstance(event, Evaluated)
    if num == 7:
        os.kill(os.getpid(), signal.SIGKILL)

tune_rh.search = lambda *args, **options: search(*args, **options, on_event=kill)
runpy.run_path(sys.argv[1], run_name="__main__")
"""
RESUMED = """
import sys
import tune_rh

run = tune_rh.resume(sys.argv[1], runner="local")
print(run.candidates[["label", "score", "rank"]])
"""


def skip_without(name: str) -> None:
    """Skip a test of an example whose libraries are not all there."""
    for library in NEEDS[name]:
        pytest.importorskip(library)


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize("name", NEEDS)
def test_an_example_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    skip_without(name)
    search = tune_rh.search

    def short(*task: Any, **options: Any) -> tune_rh.Run:
        return search(*task, **{**options, "stages": [(10, 1), (20, 1)], "candidates": 2})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune_rh, "search", short)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    table = capsys.readouterr().out
    assert table.split()[:3] == ["label", "score", "rank"]
    assert " base " in table


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NEEDS)
def test_an_example_that_is_killed_and_resumed_ends_as_a_quiet_one(tmp_path: Path, installed: Path, name: str) -> None:
    skip_without(name)
    script = EXAMPLES / f"{name}.py"
    run = re.search(r'name="(\w+)"', script.read_text(encoding="utf-8"))
    assert run is not None

    def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The installed Python in a folder that holds the example alone."""
        folder.mkdir(exist_ok=True)
        shutil.copy(script, folder)
        words: list[str | Path] = [installed / "python", *arguments]
        env = {**os.environ, "HF_HUB_OFFLINE": "1"}
        return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)

    whole = python(tmp_path / "quiet", script.name)
    assert whole.returncode == 0, whole.stderr
    cut = python(tmp_path / "killed", "-c", KILLED, script.name)
    assert cut.returncode == -signal.SIGKILL, cut.stderr
    resumed = python(tmp_path / "killed", "-c", RESUMED, run[1])
    assert resumed.returncode == 0, resumed.stderr
    table = "label"
    assert table in whole.stdout
    assert resumed.stdout[resumed.stdout.index(table) :] == whole.stdout[whole.stdout.index(table) :]
