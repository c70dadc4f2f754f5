"""A search from cells of a notebook whose kernel is killed in the middle: another process brings it to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from tests.test_given import SCRIPT
from tests.worlds.records import curves
from tune_rh.record.journal import RunPaths

CLASS = SCRIPT.partition("if __name__")[0].replace("def step(self):", "def step(self):\n        time.sleep(PAUSE)")
SEARCH = """
run = tune_rh.search(Line, space=suggest, base=dict(lr=.05), objective="val_acc", mode="max", stages=[(10, 1), (20, 2)],
                     candidates=3, name="line", resources={"slots": 1}, runner=RUNNER)
"""
SHOWN = "print(run.best.candidate, run.best.val, type(run.best.load()).__name__)"
RESUMED = """
import tune_rh
run = tune_rh.resume("line", runner=RUNNER)
print(run.best.candidate, run.best.val, type(run.best.load()).__name__)
"""


def notebook(folder: Path, runner: str, pause_s: float, kernel: str = "python3") -> NotebookClient:
    """The notebook; its kernel writes its process id to ``kernel``."""
    folder.mkdir()
    first = f"import os, pathlib, time\npathlib.Path('kernel').write_text(str(os.getpid()))\nPAUSE = {pause_s}\n{CLASS}"
    cells = [nbformat.v4.new_code_cell(text) for text in (first, SEARCH.replace("RUNNER", repr(runner)), SHOWN)]
    book = nbformat.v4.new_notebook(cells=cells)
    return NotebookClient(book, timeout=600, kernel_name=kernel, resources={"metadata": {"path": str(folder)}})


def said(client: NotebookClient) -> str:
    """What the last cell prints."""
    (output,) = client.nb.cells[-1].outputs
    return str(output["text"]).strip()


@pytest.mark.timeout(300)
def test_a_notebook_killed_in_the_middle_goes_on_elsewhere_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    ends_alike(tmp_path, "local")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("runner", ["local", "ray"])
def test_so_does_one_where_the_wheel_is_installed(
    tmp_path: Path, installed: Path, runner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    python = installed / "python"
    spec = {"argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "installed"}
    (tmp_path / "kernels" / "installed").mkdir(parents=True)
    (tmp_path / "kernels" / "installed" / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    ends_alike(tmp_path, runner, python, "installed")


def ends_alike(folder: Path, runner: str, python: str | Path = sys.executable, kernel: str = "python3") -> None:
    """Run a notebook quietly, and one that is killed and resumed by another process, and compare what comes of them."""
    quiet = notebook(folder / "quiet", "local", 0.0, kernel)
    quiet.execute()
    killed = notebook(folder / "killed", runner, 0.1, kernel)
    found = RunPaths(folder / "killed" / "runs" / "line")
    ended: list[BaseException] = []

    def execute() -> None:
        try:
            killed.execute()
        except DeadKernelError as error:
            ended.append(error)

    thread = threading.Thread(target=execute)
    thread.start()
    while thread.is_alive() and num_reports(found) < 7:
        time.sleep(0.05)
    assert thread.is_alive(), "it ended before it was killed"
    os.kill(int((folder / "killed" / "kernel").read_text()), signal.SIGKILL)
    thread.join()
    assert len(ended) == 1
    assert num_reports(found) < num_reports(RunPaths(folder / "quiet" / "runs" / "line"))
    words = [python, "-c", RESUMED.replace("RUNNER", repr(runner))]
    done = subprocess.run(words, cwd=folder / "killed", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == said(quiet)
    assert curves(found) == curves(RunPaths(folder / "quiet" / "runs" / "line"))


def num_reports(paths: RunPaths) -> int:
    """How many evaluations are on record."""
    if not paths.journal.is_file():
        return 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in paths.journal.read_text().splitlines()[:-1]]
    return sum(line.get("event") == "Evaluated" for line in lines)
