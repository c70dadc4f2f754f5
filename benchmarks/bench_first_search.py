"""From an empty file to the end of a search with ten candidates: lines to write, and seconds until it is done.

The same CNN on scikit-learn's digits, its model and batches shared (`benchmarks.first_search.model`), searched with
tune-rh, Optuna, Ray Tune and Hydra's Optuna sweeper as the documentation of each shows it: one seed each, gates at 60
and 180 of 400 steps where the library has them. Counted are the lines of a driver and its YAML that are neither blank
nor comments nor its docstring. Needs scikit-learn, hydra-core and hydra-optuna-sweeper; without the latter two Hydra
is left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks.results import hardware, record, table

TITLE = "A first search of one's own model"
FOLDER = Path(__file__).parent / "first_search"
LIBRARIES = {"tune-rh": "tune_rh", "Optuna": "optuna", "Ray Tune": "ray_tune", "Hydra": "hydra"}
# With the driver as it is counted, by the documentation of each.
AFTER = {
    "tune-rh": ("yes", "yes", "yes, where each member was", "yes"),
    "Optuna": ("no", "no", "no; with storage= what has finished", "no"),
    "Ray Tune": ("no", "no", "by Tuner.restore, trials from their start", "no"),
    "Hydra": ("no", "no", "no", "no"),
}
NOTE = (
    "tune-rh's driver is a class with `step` and `evaluate`; what its attributes hold is saved, so that a member goes "
    "on from its checkpoint and its weights are kept. Its seconds hold the control, an eleventh config, a check of the "
    "task, tests, export and page; Optuna and Hydra run one trial after another."
)
HEADER = ("library", "lines", "seconds", "a control", "trained weights", "goes on after kill -9", "a page")


def lines(name: str) -> int:
    """The lines of a driver that are neither blank nor comments nor its docstring."""
    files = sorted(FOLDER.glob(f"with_{name}.*"))
    written = [line.strip() for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return sum(bool(line) and not line.startswith(("#", '"""')) for line in written)


def seconds(name: str) -> float:
    """How long a search takes in a new process, in a folder of its own."""
    words = ["--multirun"] if name == "hydra" else []
    path = os.pathsep.join([str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory(prefix="first-") as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", f"benchmarks.first_search.with_{name}", *words],
            check=True, cwd=folder, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return time.perf_counter() - start


def main() -> int:
    """One search with each."""
    found = {title: name for title, name in LIBRARIES.items() if name != "hydra" or find_spec("hydra")}
    rows = [(title, lines(name), f"{seconds(name):.0f}", *AFTER[title]) for title, name in found.items()]
    body = f"{table(HEADER, rows)}\n\n{NOTE}"
    record(TITLE, "python -m benchmarks.bench_first_search", hardware("optuna", "ray", "scikit-learn"), body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
