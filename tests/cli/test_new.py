"""What ``tune-rh new`` writes passes every check and can be searched as it is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tune_rh.cli.main import main

pytestmark = pytest.mark.usefixtures("no_drawing")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "digits_net", raising=False)
    return tmp_path


def test_what_is_written_is_checked_and_searched(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "digits_net.py"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == ["  tune-rh check digits_net:FAMILY", "  tune-rh search digits_net.toml --runner local"]
    assert "my_model" not in (place / "digits_net.py").read_text() + (place / "digits_net.toml").read_text()
    assert main(["check", "digits_net:FAMILY"]) == 0
    assert "0 of 0 findings" in capsys.readouterr().out
    assert main(["search", "digits_net.toml", "--runner", "local", "--set", "num_candidates=1"]) == 0
    assert "Best: c" in capsys.readouterr().out
    assert (place / "runs" / "digits_net" / "best" / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_plan_as_it_is_finds_better_than_its_control(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "digits_net.py"]) == 0
    assert main(["search", "digits_net.toml", "--runner", "local"]) == 0
    assert re.search("^Best: c000[1-8] ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.slow
def test_the_laws_of_a_family_hold_for_it(place: Path) -> None:
    assert main(["new", "digits_net.py"]) == 0
    (place / "test_it.py").write_text(
        "from tune_rh.testing import FamilyConformance\n\n\n"
        'class TestIt(FamilyConformance):\n    family = "digits_net:FAMILY"\n    preset = "base"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_a_folder_is_made_and_named_in_what_to_type(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "my models/digits_net.py"]) == 0
    assert "  cd 'my models'" in capsys.readouterr().out.splitlines()
    assert {path.name for path in (place / "my models").iterdir()} == {"digits_net.py", "digits_net.toml"}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("digits.txt", "digits.txt: allowed is the name of a module, such as my_model.py"),
        ("digits-net.py", "digits-net.py: allowed is the name of a module"),
        ("class.py", "class.py: allowed is the name of a module"),
        ("ziffern_größe.py", "allowed are up to 80 letters, digits and underscores, a letter first"),
        ("analysis.py", "analysis.py: `import analysis` finds "),
        ("json.py", "json.py: `import json` finds "),
        ("there.py", "there.toml: is there already; choose another name"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    place: Path, file: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "there.toml").write_text("mine")
    assert main(["new", file]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in place.iterdir()] == ["there.toml"]
