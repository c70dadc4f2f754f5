"""A run or an export that somebody else gave never decides what code runs."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import trainables
import tune_rh
from tests.worlds.plans import fields
from trainables import trust
from trainables.errors import Untrusted
from tune_rh.cli.main import main

pytestmark = pytest.mark.usefixtures("no_drawing")

OWN = "own_family_of_trust"
MODULE = """
from pathlib import Path
Path({marker!r}).touch()
from tests.worlds.family import FAMILY, SPACE
"""


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Exists once the module `OWN` was imported; importable, trusted by nothing."""
    path = tmp_path / "imported"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{OWN}.py").write_text(MODULE.format(marker=str(path)))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trust, "_trusted", set())
    return path


@pytest.fixture
def run(marker: Path, tmp_path: Path) -> Iterator[Path]:
    """A finished run of the family in `OWN` with an export beside it, before this process has met the module."""
    plan: dict[str, Any] = {**fields(num_candidates=3), "family": f"{OWN}:FAMILY", "space": f"{OWN}:SPACE"}
    (tmp_path / "plan.toml").write_text(tomli_w.dumps(plan))
    assert main(["search", "plan.toml", "--runner", "local", "--data-dir", "data"]) == 0
    assert main(["export", "scripted", "--out", "best"]) == 0
    forget(marker)
    yield tmp_path / "runs" / "scripted"
    sys.modules.pop(OWN, None)


def forget(marker: Path) -> None:
    """As in a new process."""
    del sys.modules[OWN]
    trust._trusted.clear()
    assert marker.exists()
    marker.unlink()


def from_elsewhere(run: Path) -> None:
    """The run and the export as another user's: their signatures are made with another key."""
    for path in (run / "provenance.json", run.parents[1] / "best" / "export.json"):
        content = json.loads(path.read_text())
        assert len(content["signature"]) == 64
        content["signature"] = "0" * 64
        path.write_text(json.dumps(content))


def test_a_run_of_ones_own_needs_no_word(run: Path, marker: Path) -> None:
    assert main(["resume", "scripted", "--runner", "local"]) == 0
    assert marker.exists()
    forget(marker)
    assert trainables.load(run.parents[1] / "best") is not None


@pytest.mark.parametrize(
    "words",
    [
        ["status", "scripted"],
        ["report", "scripted"],
        ["resume", "scripted", "--runner", "local"],
        ["export", "scripted", "--out", "again"],
        ["diagnose", "scripted"],
        ["diagnose", "best"],
        ["ab", "best", "scripted/c0001", "--steps", "40", "--dry-run"],
        ["search", "runs/scripted/plan.toml", "--name", "again", "--runner", "local"],
        ["race", "runs/scripted/plan.toml", "--name", "again", "--runner", "local"],
        ["simulate", "--record", "scripted", "--curves", "curves.parquet"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_what_somebody_else_gave_is_not_imported(
    run: Path, marker: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from_elsewhere(run)
    code = main(words)
    text = "".join(capsys.readouterr())
    assert not marker.exists()
    assert f"--trust {OWN}" in text
    assert "Traceback" not in text
    assert code in ((0, 2) if words[0] in ("status", "report", "simulate", "export", "resume") else (2,))


def test_with_the_module_named_it_is(run: Path, marker: Path) -> None:
    from_elsewhere(run)
    assert main(["report", "scripted", "--trust", OWN]) == 0
    assert marker.exists()


def test_python_asks_for_the_same_word(run: Path, marker: Path) -> None:
    from_elsewhere(run)
    best = run.parents[1] / "best"
    with pytest.raises(Untrusted, match=f"--trust {OWN}"):
        trainables.load(best)
    with pytest.warns(UserWarning, match=f"--trust {OWN}"):
        tune_rh.load("scripted")
    assert not marker.exists()
    assert trainables.load(best, trust=OWN) is not None


def test_a_signature_is_of_the_modules_that_are_named(run: Path, marker: Path) -> None:
    shutil.copyfile(run.parents[1] / "modules" / f"{OWN}.py", run.parents[1] / "modules" / "other_family_of_trust.py")
    plan = run / "plan.toml"
    plan.write_text(plan.read_text().replace(OWN, "other_family_of_trust"))
    assert main(["resume", "scripted", "--runner", "local"]) == 2
    assert not marker.exists()


def test_the_key_is_for_this_user_alone(run: Path, state_home: Path) -> None:
    key = state_home / "tune-rh" / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def test_without_a_place_for_the_key_nothing_is_signed(
    marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert trust.signature([OWN]) is None
    trust.trust_signed([OWN], None)
    trust.trust_signed([OWN], "")
    assert not trust.is_trusted(OWN)
