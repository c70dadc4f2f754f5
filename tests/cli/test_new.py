"""What ``tune-rh new`` writes can be run as it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tune_rh.cli.main import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; the command line puts it on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def python(place: Path, file: str) -> str:
    """What ``python FILE`` prints, typed in ``place``."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    words, environment = (sys.executable, file), {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)  # a process that imports torch and searches
def test_what_is_written_is_searched(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "digits_net.py"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "digits_net.py is written. It runs as it is:",
        "  python digits_net.py",
    ]
    text = (place / "digits_net.py").read_text()
    (place / "digits_net.py").write_text(text.replace("steps=300", "steps=20").replace("3000", "60"))
    assert re.search(r"^Best: \S+.* Report: \S+/runs/Spirals/report/index.html$", python(place, "digits_net.py"), re.M)
    assert main(["status", "Spirals"]) == 0
    assert "Spirals: finished" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_as_it_is_it_finds_better_than_its_control(place: Path) -> None:
    assert main(["new", "digits_net.py"]) == 0
    assert re.search(r"^Best: lr=\S+ width=\d+\.", python(place, "digits_net.py"), re.MULTILINE)


def test_a_folder_is_made_and_named_in_what_to_type(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "my models/digits_net.py"]) == 0
    assert "  cd 'my models'" in capsys.readouterr().out.splitlines()
    assert [path.name for path in (place / "my models").iterdir()] == ["digits_net.py"]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("digits.txt", "digits.txt: allowed is the name of a module, such as my_model.py"),
        ("digits-net.py", "digits-net.py: allowed is the name of a module"),
        ("class.py", "class.py: allowed is the name of a module"),
        ("analysis.py", "analysis.py: `import analysis` finds "),
        ("json.py", "json.py: `import json` finds "),
        ("there.py", "there.py: is there already; choose another name"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    place: Path, file: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "there.py").write_text("mine")
    assert main(["new", file]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in place.iterdir()] == ["there.py"]
