"""Where runs and data lie, and how a command says so: what is printed can be typed, and what was said once holds."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path

import pytest
import tomli_w

from tests.worlds.plans import fields
from tune_rh.cli.main import main
from tune_rh.record.events import Evaluated, Event
from tune_rh.record.journal import RunPaths
from tune_rh.run import runs
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.session import Session

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a blank and an umlaut in its name, and a plan in it."""
    folder = tmp_path / "mein Ordner ü"
    (folder / "meine daten").mkdir(parents=True)
    (folder / "plan.toml").write_text(tomli_w.dumps(fields(num_candidates=3)), encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TUNE_RH_DATA_DIR", raising=False)
    return folder


def interrupted(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run a command that starts a search, and press Ctrl-C at its second report."""
    heard = 0

    def watch(event: Event) -> None:
        nonlocal heard
        heard += isinstance(event, Evaluated)
        if heard == 2 and isinstance(event, Evaluated):
            signal.raise_signal(signal.SIGINT)

    born = Session.__init__

    def init(self: Session, *args: object, **more: object) -> None:
        born(self, *args, **more)  # type: ignore[arg-type]
        self.listeners.append(watch)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "__init__", init)
        return main(list(words))


def typed(said: str) -> list[str]:
    """The command that ``said`` ends with, as a shell reads it."""
    words = shlex.split(said.splitlines()[-1])
    assert words[0] == "tune-rh"
    return words[1:]


def test_what_is_printed_after_ctrl_c_goes_on_as_it_stands(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Runner, folder of runs with its blanks, and the data of the first call, which need not be said again."""
    options = ("--runner", "local", "--runs-dir", "läufe hier", "--data-dir", "meine daten")
    assert interrupted(monkeypatch, "search", "plan.toml", *options) == 130
    command = typed(capsys.readouterr().out)
    assert "--data-dir" not in command
    assert main(command) == 0
    assert "Best: c" in capsys.readouterr().out


def test_after_a_second_ctrl_c_it_says_how_to_go_on_too(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def quit_at_once(self: LocalRunner, search: Session) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalRunner, "run", quit_at_once)
        assert main(["search", "plan.toml", "--runner", "local"]) == 130
    out, error = capsys.readouterr()
    assert "Quit at once" in out
    assert error == ""
    assert typed(out) == ["resume", "scripted", "--runner", "local"]


def test_other_data_than_the_first_calls_are_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert interrupted(monkeypatch, "search", "plan.toml", "--runner", "local", "--data-dir", "meine daten") == 130
    (place / "copy").mkdir()
    assert interrupted(monkeypatch, "resume", "scripted", "--runner", "local", "--data-dir", "copy") == 130
    command = typed(capsys.readouterr().out)
    assert command == ["resume", "scripted", "--runner", "local", "--data-dir", str(place / "copy")]


def test_status_says_the_folders_name_and_place(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert interrupted(monkeypatch, "search", "plan.toml", "--runner", "local") == 130
    (place / "runs").rename(place / "moved")
    (place / "moved" / "scripted").rename(place / "moved" / "renamed")
    capsys.readouterr()
    assert main(["status", "moved/renamed"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert shlex.split(first.partition("stopped: ")[2]) == [
        *("tune-rh", "resume", "renamed", "--runs-dir", str(place / "moved"))
    ]


def test_the_data_folder_of_a_run_is_the_one_asked_for_or_recorded_or_the_usual(place: Path) -> None:
    paths = RunPaths(place / "run")
    paths.root.mkdir()
    assert runs.recorded_data_dir(paths) == place / "data"
    for text in ("{", "[]", "{}", '{"data": null}', '{"data": {"folder": 3}}', '{"data": {"folder": "/nowhere"}}'):
        paths.provenance.write_text(text)
        assert runs.recorded_data_dir(paths) == place / "data"
    paths.provenance.write_text(f'{{"data": {{"folder": "{place / "meine daten"}"}}}}', encoding="utf-8")
    assert runs.recorded_data_dir(paths) == place / "meine daten"


@pytest.mark.parametrize("name", ["", "a/b", 'mit "Anführung"', "..", "back\\slash"])
def test_a_name_that_no_run_can_have_is_refused_as_it_was_typed(place: Path, name: str, capsys: Capture) -> None:
    assert main(["search", "plan.toml", "--runner", "local", "--name", name]) == 2
    assert f"name = {name!r}: " in capsys.readouterr().err
    assert not (place / "runs").exists()


@pytest.mark.parametrize("lost", ["missing", "torn", "not a plan"])
def test_a_damaged_plan_of_a_run_is_a_damaged_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, lost: str
) -> None:
    assert interrupted(monkeypatch, "search", "plan.toml", "--runner", "local") == 130
    plan = place / "runs" / "scripted" / "plan.toml"
    if lost == "missing":
        plan.unlink()
    else:
        plan.write_text("name = " if lost == "torn" else "nmae = 'x'")
    for command in ("status", "resume", "report", "export", "diagnose"):
        capsys.readouterr()
        more = ["--out", "somewhere"] if command == "export" else []
        assert main([command, "scripted", *more]) == 5
        assert "plan.toml" in capsys.readouterr().err


def test_the_working_folder_can_take_an_export(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert main(["search", "plan.toml", "--runner", "local"]) == 0
    (place / "here").mkdir()
    monkeypatch.chdir(place / "here")
    assert main(["export", "scripted", "--runs-dir", "../runs", "--out", "."]) == 0
    assert (place / "here" / "model.safetensors").is_file()


def test_a_tilde_that_the_shell_left_is_the_home_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("HOME", str(place))
    assert main(["search", "plan.toml", "--runner", "local", "--no-trial", "--runs-dir=~/mine", "--data-dir=~/d"]) == 0
    assert [path.name for path in (place / "mine").iterdir()] == ["scripted"]
    assert not (place / "~").exists()
    with pytest.raises(SystemExit):
        main(["search", "plan.toml", "--runs-dir=~nobody-has-this-name/mine"])
    assert "argument --runs-dir: '~nobody-has-this-name/mine': Could not determine home" in capsys.readouterr().err


def test_data_that_can_lie_nowhere_is_refused_before_anything_else(place: Path, capsys: Capture) -> None:
    words = ["search", "plan.toml", "--runner", "local", "--data-dir"]
    for more in ([], ["--dry-run"]):
        assert main([*words, "plan.toml/below", *more]) == 2
        assert f"--data-dir plan.toml/below: {place / 'plan.toml'} is no folder" in capsys.readouterr().err
    assert not (place / "runs").exists()
