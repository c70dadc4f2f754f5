"""The search of the test bed, and what it has come to: the same wherever it runs, and whatever happens to it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from tests.cluster.bed import ROOT
from tests.worlds.plans import fields
from tests.worlds.records import curves, of
from tune_rh.record.events import Evaluated
from tune_rh.record.journal import RunPaths

EVERY, REPORTS, MEMBERS = 10, 32, 8
NUM_STEPS = EVERY * REPORTS * MEMBERS
# Gates that wait for all: which member comes first, and so the order of events, decides nothing.
PLAN: dict[str, Any] = fields(
    name="run",
    family="tests.cluster.family:FAMILY",
    space="tests.cluster.family:SPACE",
    num_candidates=3,
    seeds=[7, 42],
    eval_every=EVERY,
    save_every=EVERY,
    stages=[
        {"until_step": EVERY * REPORTS // 2, "num_seeds": 2, "top": 3},
        {"until_step": EVERY * REPORTS, "num_seeds": 2},
    ],
    fixed={"noise": 0.02},
    resources={"max_failures": 0, "max_losses": 40},
)


def words(folder: Path, *more: str, **changes: Any) -> list[str]:
    """The arguments of ``tune-rh`` that search in ``folder``, with ``changes`` to the plan."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.toml").write_text(tomli_w.dumps({**PLAN, **changes}))
    return ["search", str(folder / "plan.toml"), "--no-trial", *places(folder), *more]


def places(folder: Path) -> list[str]:
    """Where runs and data lie below ``folder``."""
    return ["--runs-dir", str(folder / "runs"), "--data-dir", str(folder / "data")]


def search_quietly(folder: Path) -> RunPaths:
    """The search in one process of this machine."""
    command = [sys.executable, "-m", "tune_rh", *words(folder, "--runner", "local")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return RunPaths(folder / "runs" / "run")


def outcome(paths: RunPaths) -> Mapping[str, Any]:
    """Curves and values on the test split by member, and a digest of the exported weights."""
    weights = hashlib.sha256((paths.best / "model.safetensors").read_bytes()).hexdigest()
    return {"weights": weights, **{str(member): curve for member, curve in curves(paths).items()}}


def repeated(paths: RunPaths) -> list[str]:
    """Reports that stand in the journal more than once."""
    counts = Counter(f"{event.member} at {event.step}" for event in of(paths, Evaluated))
    return [report for report, number in counts.items() if number > 1]


def steps_taken(folder: Path) -> int:
    """How many optimiser steps all members have taken, those that were lost included."""
    return sum(file.read_text().count("\n") for file in (folder / "data" / "steps").iterdir())
