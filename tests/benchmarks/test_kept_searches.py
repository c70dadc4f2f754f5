"""Searches that are kept in a folder: a run that was broken off goes on, and anything else that was asked is run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_simulate
from benchmarks.bench_simulate import Task
from benchmarks.settings import BEFORE, CHOSEN

TASKS = [Task("lcdb-3", tool, repeat, CHOSEN, 25) for tool in ("ours", "Ray Tune ASHA") for repeat in range(3)]


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """The tasks that were searched."""
    done: list[Task] = []

    def search(task: Task) -> np.ndarray:
        done.append(task)
        return np.full(4, len(task.tool) + task.repeat / 10)

    monkeypatch.setattr(bench_simulate, "search", search)
    return done


def test_what_is_kept_is_not_searched_again(searched: list[Task], tmp_path: Path) -> None:
    first = bench_simulate.run(TASKS[:3], 1, tmp_path)
    assert bench_simulate.run(TASKS[:3], 1, tmp_path)["lcdb-3"]["ours"].tolist() == first["lcdb-3"]["ours"].tolist()
    assert searched == TASKS[:3]
    both = bench_simulate.run(TASKS, 1, tmp_path)["lcdb-3"]
    assert searched == TASKS
    np.testing.assert_array_equal(both["Ray Tune ASHA"][:, 0], [13.0, 13.1, 13.2])


@pytest.mark.parametrize("other", [{"setting": BEFORE}, {"full_runs": 26}, {"table": "lcdb-6"}])
def test_other_searches_are_run(searched: list[Task], tmp_path: Path, other: dict[str, object]) -> None:
    bench_simulate.run(TASKS[:3], 1, tmp_path)
    bench_simulate.run([replace(task, **other) for task in TASKS[:3]], 1, tmp_path)
    assert len(searched) == 6


def test_slow_peers_are_repeated_a_quarter_as_often() -> None:
    table = bench_simulate._tables()["lcdb-3"]
    tasks = bench_simulate.searches([table], ["ours", "NePS ASHA"], {"ours": CHOSEN}, 20, 25)
    assert [sum(task.tool == tool for task in tasks) for tool in ("ours", "NePS ASHA")] == [20, 5]
