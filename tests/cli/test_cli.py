"""The command line as a user meets it: exit codes, messages, and that nothing is lost on the way."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from tests.trainables.text import text_sets
from tests.worlds.plans import fields
from trainables.registry import FAMILIES, build_config, get_family, get_part, resolve
from tune_rh.cli.main import COMMANDS, main
from tune_rh.record.journal import RunPaths, locked

pytestmark = pytest.mark.usefixtures("no_drawing")

ROOT = Path(__file__).parents[2]


class Shell:
    """Runs commands in process with runs and data below one folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self.places = ["--runs-dir", str(folder / "runs"), "--data-dir", str(folder / "data")]

    def plan(self, **changes: object) -> str:
        path = self.folder / "plan.toml"
        path.write_text(tomli_w.dumps(fields(**changes)))
        return str(path)

    def __call__(self, *words: str) -> tuple[int, str, str]:
        both = words[0] in ("search", "resume", "export")
        places = {"status": self.places[:2], "data": self.places[2:]}.get(words[0], self.places if both else [])
        try:
            code = main([*words, *places])
        except SystemExit as error:
            code = int(error.code or 0)
        said = self._capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


@pytest.fixture
def run(shell: Shell, copy_run: Callable[[Path], Path]) -> Path:
    """A finished run where the shell looks for runs."""
    return copy_run(shell.folder / "runs")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0


def test_no_command_and_unknown_command_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    with pytest.raises(SystemExit) as stop:
        main(["serach"])
    assert stop.value.code == 2
    assert "serach" in capsys.readouterr().err


def test_search_status_export_from_start_to_end(shell: Shell) -> None:
    code, out, _ = shell("search", shell.plan(), "--runner", "local")
    assert code == 0
    assert "Funnel" in out
    assert "Ranking" in out
    assert "Best: c" in out
    run = shell.folder / "runs" / "scripted"
    assert (run / "best" / "README.md").is_file()
    code, out, _ = shell("status", "scripted")
    assert code == 0
    assert "finished" in out
    code, out, _ = shell("export", "scripted", "--out", str(shell.folder / "out"))
    assert code == 0
    assert {p.name for p in (shell.folder / "out").iterdir()} == {
        "README.md",
        "config.toml",
        "export.json",
        "metrics.json",
        "model.safetensors",
        "provenance.json",
        "seeds.csv",
    }
    before = (run / "journal.jsonl").read_bytes()
    code, out, _ = shell("resume", "scripted", "--runner", "local")
    assert code == 0
    assert "finished already" in out
    assert (run / "journal.jsonl").read_bytes() == before


def test_dry_run_writes_nothing(shell: Shell) -> None:
    code, out, _ = shell("search", shell.plan(), "--dry-run")
    assert code == 0
    assert "without gates" in out
    assert "Gates learn" not in out
    assert not (shell.folder / "runs").exists()
    learns = ["--set", 'gates="adaptive"']
    _, out, _ = shell("search", shell.plan(), "--dry-run", *learns)
    assert "Gates learn how many go on." in out
    _, out, _ = shell("search", shell.plan(), "--dry-run", *learns, "--set", "budget.max_steps=5000")
    assert "Gates learn how many go on, and spend the budget of 5000 steps to its end." in out


def test_override_is_recorded(shell: Shell) -> None:
    code, _, _ = shell("search", shell.plan(), "--runner", "local", "--set", "num_candidates=3", "--name", "other")
    assert code == 0
    frozen = tomllib.loads((shell.folder / "runs" / "other" / "plan.toml").read_text())
    assert (frozen["num_candidates"], frozen["name"]) == (3, "other")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"space": "tests.worlds.family:EMPTY"}, "draws nothing"),
        ({"space": "tests.worlds.family:INVALID"}, "floor"),
        ({"space": "tests.worlds.family:NOWHERE"}, "cannot be imported"),
        ({"space": "tests.worlds.family:FAMILY"}, "not a search_spaces.api.Space"),
        ({"fixed": {"floor": 1.5}}, "fixed.floor = 1.5: space"),
        ({"fixed": {"flor": 1.5}}, "flor = 1.5: there is no such key; is 'floor' meant?"),
        ({"control": "nobody"}, "known: control"),
        ({"nmae": "x"}, "nmae = 'x': there is no such key; is 'name' meant?"),
        ({"scoring": {"objectiv": "mean"}}, "scoring.objectiv = 'mean': there is no such key; is 'objective' meant?"),
    ],
)
def test_a_bad_plan_exits_2_before_anything_is_written(shell: Shell, changes: dict[str, object], expected: str) -> None:
    code, _, err = shell("search", shell.plan(**changes), "--runner", "local")
    assert code == 2
    assert expected in err
    assert not (shell.folder / "runs").exists()


def test_missing_plan_names_those_that_ship(shell: Shell) -> None:
    code, _, err = shell("search", "quickstrat")
    assert code == 2
    assert "quickstart" in err


def test_more_cores_than_there_are_exit_3(shell: Shell) -> None:
    code, _, err = shell("search", shell.plan(resources={"cpu": 4096}), "--runner", "local")
    assert code == 3
    assert "resources.cpu = 4096" in err


def test_a_run_that_exists_exits_5_and_is_left_alone(shell: Shell, run: Path) -> None:
    journal = run / "journal.jsonl"
    before = journal.read_bytes()
    code, _, err = shell("search", shell.plan(num_candidates=2), "--runner", "local")
    assert code == 5
    assert "tune-rh resume scripted" in err
    assert journal.read_bytes() == before


@pytest.mark.usefixtures("run")
def test_unknown_run_exits_5_with_those_there_are(shell: Shell) -> None:
    code, _, err = shell("resume", "nothing")
    assert code == 5
    assert "there: scripted" in err


def test_a_locked_run_exits_5_with_the_holder(shell: Shell, run: Path) -> None:
    with locked(RunPaths(run)):
        code, _, err = shell("resume", "scripted", "--runner", "local")
        assert code == 5
        assert f'"pid": {os.getpid()}' in err
        assert "running" in shell("status", "scripted")[1] or "finished" in shell("status", "scripted")[1]


def test_missing_data_that_cannot_be_made_exits_2(shell: Shell) -> None:
    code, _, err = shell("search", shell.plan(fixed={"data": "absent"}), "--runner", "local")
    assert code == 2
    assert "absent" in err


@pytest.mark.usefixtures("run")
def test_changed_data_is_refused_on_resume(shell: Shell) -> None:
    (shell.folder / "data").mkdir(exist_ok=True)
    (shell.folder / "data" / "changed").write_text("x")
    code, _, err = shell("resume", "scripted", "--runner", "local")
    assert code == 5
    assert "data set" in err


def test_a_full_disk_exits_5_and_the_run_goes_on_once_there_is_room(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("tune_rh.record.journal.os.fsync", fsync)
        code, _, err = shell("search", shell.plan(num_candidates=3), "--runner", "local")
    assert code == 5
    assert "the disk is full" in err
    code, out, _ = shell("resume", "scripted", "--runner", "local")
    assert code == 0
    assert "Best: c" in out


def test_failed_members_exit_4_and_the_rest_is_there(shell: Shell) -> None:
    plan = shell.plan(presets=["failing"], num_candidates=3, resources={"max_failures": 0})
    code, out, _ = shell("search", plan, "--runner", "local")
    assert code == 4
    assert "scripted failure at step 5" in out
    assert "Best: c" in out


@pytest.mark.usefixtures("run")
def test_export_says_why_it_cannot(shell: Shell) -> None:
    taken = shell.folder / "taken"
    taken.mkdir()
    (taken / "mine").touch()
    code, _, err = shell("export", "scripted", "--out", str(taken))
    assert code == 2
    assert "not empty" in err
    code, _, err = shell("export", "scripted", "--out", str(shell.folder / "new"), "--candidate", "c0099")
    assert code == 2
    assert "those that have: " in err


def test_data_lists_its_sets(shell: Shell) -> None:
    code, out, _ = shell("data", "spacing_mdn")
    assert code == 0
    assert [line.split("│")[1:3] for line in out.splitlines() if "│" in line] == [
        [f" {name:<9} ", " not made "] for name in ("first100k", "full", "gue", "shuffled")
    ]
    code, _, err = shell("data", "spacing_mdn", "--size", "huge")
    assert code == 2
    assert "first100k" in err
    code, _, err = shell("data", "nothing")
    assert code == 2
    assert "known: equilibrium, nsa, shared_moe, spacing_mdn" in err


def test_data_lists_corpora_with_licence_and_state(shell: Shell) -> None:
    code, out, _ = shell("data", "shared_moe", "--corpus", "pydoc", "--vocab-size", "300")
    assert code == 0
    assert "pydoc-300  sha256 " in out
    assert "(PSF-2.0), https://docs.python.org/" in out
    assert "train: " in out
    code, out, _ = shell("data", "shared_moe")
    assert code == 0
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if "│" in line}
    assert "CC-BY-SA-4.0" in rows["wiki"]
    assert "5 │" in rows["wiki"]
    assert "not made" in rows["wiki"]
    assert "made: " in rows["pydoc-300"]


def test_data_of_a_folder_and_a_search_that_does_not_fit_it(shell: Shell) -> None:
    files = text_sets.write_lines(shell.folder / "files", text_sets.documents())
    lines = (files / "all.jsonl").read_text().replace('"text"', '"body"')
    (files / "all.jsonl").write_text(lines)
    given = ["data", "shared_moe", "--folder", str(files), "--name", "mine", "--vocab-size", "300"]
    code, _, err = shell(*given)
    assert code == 2
    assert "all.jsonl, line 1: has no field 'text'" in err
    code, out, _ = shell(*given, "--text-field", "body")
    assert code == 0
    assert "200 documents" in out
    assert str(files) in out
    assert "mine" in shell("data", "shared_moe")[1]
    plan = shell.plan(
        family="shared_moe", space="cpu-tiny", control="cpu-tiny", fixed={"data": "mine"}, diagnose=[], require=[]
    )
    code, _, err = shell("search", plan, "--dry-run")
    assert code == 2
    assert "preset 'cpu-tiny': vocab_size = 4096: data set 'mine' has 300" in err
    assert "space 'cpu-tiny': vocab_size = 4096: data set 'mine' has 300" in err
    code, _, err = shell("search", plan, "--runner", "local")
    assert code == 2
    assert "vocab_size = 4096" in err
    assert not (shell.folder / "runs" / "scripted").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["spacing_mdn", "--vocab-size", "512"], "--vocab-size: for text only"),
        (["spacing_mdn", "--folder", ".", "--name", "x"], "--folder, --name: for text only"),
        (["shared_moe", "--corpus", "wiki", "--folder", "."], "--folder . and --corpus wiki: choose one of them"),
        (["shared_moe", "--folder", "."], "--folder PATH and --name NAME: one needs the other"),
        (["shared_moe", "--name", "x"], "--folder PATH and --name NAME: one needs the other"),
        (["shared_moe", "--text-field", "x"], "--text-field x: belongs to --folder"),
        (["shared_moe", "--vocab-size", "512"], "--vocab-size 512: belongs to --corpus or --folder"),
        (["shared_moe", "--corpus", "novels"], "no corpus is called 'novels'; allowed: pydoc, wiki"),
        (["shared_moe", "--corpus", "wiki", "--vocab-size", "12"], "vocab_size = 12: allowed are 257"),
        (["shared_moe", "--folder", "/nowhere", "--name", "x"], "/nowhere: no such folder"),
    ],
)
def test_data_says_what_does_not_go_together(shell: Shell, words: list[str], said: str) -> None:
    code, _, err = shell("data", *words)
    assert code == 2
    assert said in err


def test_families_shows_presets_spaces_metrics(shell: Shell) -> None:
    assert "spacing_mdn" in shell("families")[1]
    out = shell("families", "spacing_mdn")[1]
    assert "e55" in out
    assert "cpu-quickstart" in out
    assert "val_nll" in out
    assert "class I to class II" in " ".join(out.split())


@pytest.mark.parametrize("family", [name for name in FAMILIES if get_part(name, "preflight").footprint])
def test_families_counts_the_parameters_of_each_preset(shell: Shell, family: str) -> None:
    lines = shell("families", family)[1].splitlines()
    model = resolve(get_family(family).model)(build_config(get_family(family), preset="tiny"))
    (row,) = (line for line in lines if line.startswith("│ tiny "))
    assert f"{sum(weight.numel() for weight in model.parameters()):,}" in row


def test_families_shows_what_a_space_asks_for_and_when(shell: Shell) -> None:
    rows = [" ".join(line.split()) for line in shell("families", "spacing_mdn")[1].splitlines()]
    assert "│ cpu-quickstart │ lr │ 0.001 to 0.01, log │ │" in rows
    assert "│ │ ar_features │ 0, 16, 32 │ layout = none │" in rows


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_saves_and_says_how_to_resume(shell: Shell, number: signal.Signals) -> None:
    plan, places = shell.plan(num_candidates=3, fixed={"step_s": 0.004}), shell.places
    before = signal.signal(number, signal.default_int_handler)  # the driver inherits what is ignored, as under nohup
    driver = subprocess.Popen(
        [sys.executable, "-m", "tune_rh", "search", plan, "--runner", "local", *places],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    signal.signal(number, before)
    assert driver.stdout is not None
    seen = []
    for line in driver.stdout:
        seen.append(line)
        if "step 10" in line:
            driver.send_signal(number)
            break
    rest = driver.stdout.read()
    assert driver.wait() == 130
    assert "tune-rh resume scripted" in rest
    journal = (shell.folder / "runs" / "scripted" / "journal.jsonl").read_text().splitlines()
    assert json.loads(journal[-1]).items() >= {"event": "SessionEnded", "session": 1, "reason": "interrupted"}.items()
    code, out, err = shell("resume", "scripted", "--runner", "local")
    assert code == 0, err
    assert "Best: c" in out
