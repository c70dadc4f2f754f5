"""A driver in a process of its own: opens a run, searches in process, and may kill itself after an event.

``python -m tests.worlds.driver ROOT DATA_DIR [KILL_AFTER]``: after that many events of this session the process ends as
by kill -9, at once, with nothing said.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tune_rh.record.events import Event
from tune_rh.record.journal import RunPaths, locked
from tune_rh.run import runs
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.runner import start_session

CHECKOUT = Path(__file__).parents[2]


def main(root: Path, data_dir: Path, kill_after: int) -> None:
    """Search until the end, or until the kill."""
    num = 0

    def watch(_event: Event) -> None:
        nonlocal num
        num += 1
        if num == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    paths = RunPaths(root)
    with locked(paths):
        run = runs.open_run(paths, data_dir)
        search = start_session(run, runner="local", slots=1)
        search.listeners.append(watch)
        LocalRunner(run).run(search)
        search.close("finished")


def killed(root: Path, data_dir: Path, kill_after: int) -> None:
    """Search in a process of its own, which is killed after so many events."""
    words = [sys.executable, "-m", "tests.worlds.driver", str(root), str(data_dir), str(kill_after)]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
