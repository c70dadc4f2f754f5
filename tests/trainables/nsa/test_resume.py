"""A search over sparse models that is killed with kill -9 and resumed ends bit for bit as one that nobody disturbed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.worlds import driver
from tests.worlds.plans import plan
from tests.worlds.records import events, of
from trainables.worker.checkpoint import load_latest
from tune_rh.record.events import Evaluated
from tune_rh.record.events import Tested as ReadOfTest
from tune_rh.record.journal import RunPaths
from tune_rh.run import runs

ROOT = Path(__file__).parents[3]
CONFIGS = {
    "wider": {"preset": "tiny", "fields": {"window": 32, "gate": "softmax"}},
    "twin": {"preset": "tiny", "fields": {"attn": "dense"}},
}


def made(folder: Path, data_dir: Path) -> RunPaths:
    search = plan(
        family="nsa",
        space="",
        control="tiny",
        presets=["wider"],
        references=["twin"],
        configs=CONFIGS,
        num_candidates=1,
        seeds=[7, 42],
        eval_every=2,
        save_every=2,
        stages=[{"until_step": 4, "num_seeds": 1}, {"until_step": 6, "num_seeds": 2}],
        diagnose=[],
    )
    return runs.create(search, folder, data_dir)


def measured(paths: RunPaths) -> dict[tuple[Any, ...], dict[str, float]]:
    """What was reported of each member at each step, and of the test split, without rates."""
    found: dict[tuple[Any, ...], dict[str, float]] = {}
    for event in (*of(paths, Evaluated), *of(paths, ReadOfTest)):
        metrics = {name: value for name, value in event.metrics.items() if name != "tokens_per_s"}
        assert found.setdefault((type(event), event.member, event.step), metrics) == metrics
    return found


def test_a_killed_search_ends_as_one_that_was_not(bytes_dir: Path, tmp_path: Path) -> None:
    whole, killed = made(tmp_path / "whole", bytes_dir), made(tmp_path / "killed", bytes_dir)
    driver.main(whole.root, bytes_dir, 0)
    for kill_after in (6, 9):
        words = [sys.executable, "-m", "tests.worlds.driver", str(killed.root), str(bytes_dir), str(kill_after)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    driver.main(killed.root, bytes_dir, 0)
    assert measured(killed) == measured(whole)
    assert len(events(killed)) > len(events(whole))
    for folder in sorted((whole.root / "members").iterdir()):
        one, other = (load_latest(paths.root / "members" / folder.name / "checkpoints") for paths in (whole, killed))
        assert one is not None
        assert other is not None
        for name, weights in one[0]["model"].items():
            assert weights.equal(other[0]["model"][name]), (folder.name, name)
