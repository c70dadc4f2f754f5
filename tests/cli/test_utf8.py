"""Files are UTF-8 whatever the locale, and a path may hold any byte that a file system allows."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import tomli_w

from tests.worlds.plans import fields
from tune_rh.errors import PreflightRefused
from tune_rh.plan.schema import Resources
from tune_rh.run.ray.cluster import connect
from tune_rh.simulation import curve_table

ROOT = Path(__file__).parents[2]
FAMILY = '''
"""Eine Familie für Tests."""
from dataclasses import replace

from tests.worlds import family as world

NAMES = {"val_loss": "val_größe", "test_loss": "test_größe", "health": "gesundheit ☃"}


class Task(world.ScriptedTask):
    def evaluate(self, split="val"):
        return {NAMES.get(name, name): value for name, value in super().evaluate(split).items()}


def renamed(metric):
    return replace(metric, name=NAMES.get(metric.name, metric.name))


FAMILY = replace(
    world.FAMILY,
    task=f"{__name__}:Task",
    summary="Größen ☃",
    objective=renamed(world.FAMILY.objective),
    metrics=tuple(map(renamed, world.FAMILY.metrics)),
)
SPACE = world.SPACE
'''
COMMANDS = """
import sys
from contextlib import suppress

import matplotlib.figure

import trainables
import tune_rh
from tune_rh.cli.main import main

matplotlib.figure.Figure.savefig = lambda self, file, **options: file.write(b"<svg></svg>")
run, out, curves, page = sys.argv[1:]
assert sys.getfilesystemencoding() == ENCODING, sys.getfilesystemencoding()
for words in (
    ["search", "plan.toml", "--runner", "local", "--runs-dir", run],
    ["status", "zahlen", "--runs-dir", run],
    ["resume", "zahlen", "--runs-dir", run, "--runner", "local"],
    ["report", "zahlen", "--runs-dir", run, "--out", page],
    ["export", "zahlen", "--runs-dir", run, "--out", out],
    ["ab", out, "zahlen/c0000", "--steps", "40", "--runs-dir", run, "--dry-run"],
    ["simulate", "--record", "zahlen", "--curves", curves, "--runs-dir", run],
    ["families", "weltfamilie:FAMILY"],
):
    code = main(words)
    assert code == 0, (words, code)
trainables.load(out)
tune_rh.load("zahlen", runs_dir=run)
"""


def filled(folder: Path) -> Path:
    """``folder`` with a plan and a family in it."""
    folder.mkdir()
    plan = fields(
        num_candidates=2,
        name="zahlen",
        family="weltfamilie:FAMILY",
        space="weltfamilie:SPACE",
        control="größe",
        configs={"größe": {"preset": "control"}, "αβγ": {"fields": {"bend": 0.25}}},
        presets=["αβγ"],
        rules={"health": [{"metric": "gesundheit ☃", "at_least": -1.0}]},
    )
    (folder / "plan.toml").write_text(tomli_w.dumps(plan), encoding="utf-8")
    (folder / "weltfamilie.py").write_text(FAMILY, encoding="utf-8")
    return folder


def run_all(folder: Path, words: Sequence[bytes], **environment: str) -> None:
    encoding = "ascii" if environment else "utf-8"
    done = subprocess.run(
        [sys.executable, "-c", f"ENCODING = {encoding!r}{COMMANDS}", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))} | environment,
        capture_output=True,
    )
    assert done.returncode == 0, (done.stdout[-1000:] + done.stderr[-3000:]).decode(errors="backslashreplace")


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("läufe ☃".encode(), {"LC_ALL": "C", "PYTHONUTF8": "0"}),
        (b"bytes \xff\xfe", {}),
        (b"a?b#c%20d'e\"f:g\nh*[i]{j}\\k ~$;&|<>`!", {}),
    ],
    ids=["ascii locale", "bytes", "signs"],
)
def test_a_search_with_what_is_made_of_it(name: bytes, environment: dict[str, str], tmp_path: Path) -> None:
    folder = filled(tmp_path / os.fsdecode(name))
    run_all(folder, [b"runs " + name, b"best " + name, b"curves " + name, b"page " + name], **environment)
    runs, best, curves = (folder / f"{kind} {folder.name}" for kind in ("runs", "best", "curves"))
    journal = (runs / "zahlen" / "journal.jsonl").read_text(encoding="utf-8")
    assert json.loads(journal.splitlines()[2])["label"] == "größe"
    assert "val_größe" in (best / "README.md").read_text(encoding="utf-8")
    assert "gesundheit ☃" in (runs / "zahlen" / "plan.toml").read_text(encoding="utf-8")
    assert curve_table.load(curves).objective == "val_größe"
    with sqlite3.connect(runs / "zahlen" / "study.db") as study:
        assert study.execute("SELECT count(*) FROM trials").fetchall() == [(3,)]


def test_ray_is_not_started_where_it_could_not_read_a_path(tmp_path: Path) -> None:
    with (
        pytest.raises(PreflightRefused, match=r"Ray takes only paths .* --runner local") as refused,
        connect(Resources(), owner=tmp_path / "run \udcff"),
    ):
        pass
    assert refused.value.exit_code == 3
