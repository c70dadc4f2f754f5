"""Configs by name, and `tune-rh ab` and `tune-rh race`: what they take, and what they refuse before all else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.cli.test_cli import Shell
from tests.worlds.plans import fields
from tests.worlds.records import finish, make
from trainables.worker.exported import CONFIG
from tune_rh.cli.main import main
from tune_rh.errors import PlanError, RunNotFound
from tune_rh.plan.schema import Variant
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.results.export import export
from tune_rh.run.chosen import FAMILIES, Chosen, chosen

FAMILY = "tests.worlds.family:FAMILY"


def written(path: Path, **values: Any) -> str:
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return str(path)


# --- configs by name -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A finished run called ``mine``, with an export beside the folder of runs."""
    paths = make(tmp_path_factory.mktemp("given") / "runs" / "mine", num_candidates=2, presets=["good"])
    history: History = finish(paths)
    export(paths, history, paths.root.parents[1] / "taken")
    return paths


def test_a_preset_is_found_in_the_family_that_has_it(tmp_path: Path) -> None:
    assert chosen("good", FAMILY, tmp_path) == Chosen(FAMILY, "good", Variant(preset="good"))
    assert chosen("e4", None, tmp_path) == Chosen("spacing_mdn", "e4", Variant(preset="e4"))


def test_a_preset_of_two_families_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "scripted", FAMILY)
    monkeypatch.setitem(FAMILIES, "also", FAMILY)
    monkeypatch.setitem(FAMILIES, "scripted", FAMILY)
    with pytest.raises(PlanError, match="'good': is a preset of scripted and also; choose with --family"):
        chosen("good", None, tmp_path)


def test_a_file_says_what_it_is_made_of(tmp_path: Path) -> None:
    text = written(tmp_path / "b.toml", family=FAMILY, preset="good", patience_steps=40, noise=0.25)
    expected = Chosen(FAMILY, "b", Variant(preset="good", fields={"noise": 0.25}, patience_steps=40))
    assert chosen(text, None, tmp_path) == chosen(text, FAMILY, tmp_path) == expected
    bare = written(tmp_path / "bare.toml", noise=0.5)
    assert chosen(bare, FAMILY, tmp_path) == Chosen(FAMILY, "bare", Variant(fields={"noise": 0.5}))


@pytest.mark.parametrize("name", ["c0001", "c0001-s42"])
def test_a_candidate_of_a_run_is_its_whole_config(searched: RunPaths, name: str) -> None:
    found = chosen(f"mine/{name}", None, searched.root.parent)
    assert (found.family, found.label, found.variant.preset) == (FAMILY, "mine/c0001", None)
    assert found.variant.fields["floor"] == 0.25
    assert None not in found.variant.fields.values()


def test_an_exported_folder_is_its_config(searched: RunPaths) -> None:
    folder = searched.root.parents[1] / "taken"
    found = chosen(str(folder), None, searched.root)
    assert (found.family, found.label) == (FAMILY, "taken")
    assert found.variant.fields == tomllib.loads((folder / CONFIG).read_text())


@pytest.mark.parametrize(
    ("text", "family", "said"),
    [
        ("nobody", FAMILY, ["'nobody'", "RUN/c0007", "control", "good"]),
        ("nobody", None, ["'nobody'", "spacing_mdn: ", "e4"]),
        ("no/such.toml", FAMILY, ["no/such.toml: no such file"]),
        ("mine/c12x", None, ["mine/c12x: no such file, and not RUN/c0007"]),
        ("mine/c0099", None, ["mine/c0099", "no such candidate", "c0000, c0001"]),
        ("words.toml", FAMILY, ["words.toml: cannot be read as TOML"]),
        ("bytes.toml", FAMILY, ["bytes.toml: cannot be read as TOML"]),
        ("empty.toml", FAMILY, ["empty.toml: is empty", "at least its family, a preset or one field"]),
        ("orphan.toml", None, ["orphan.toml: does not say its family", "--family"]),
        ("other.toml", FAMILY, ["other.toml: family = 'spacing_mdn', but --family is", FAMILY]),
        ("patience.toml", FAMILY, ["patience.toml", "patience_steps = 'long'", "integer"]),
        ("preset.toml", FAMILY, ["preset.toml", "preset = 3", "string"]),
    ],
)
def test_what_is_no_config_is_named(
    searched: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, family: str | None, said: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.toml").write_text("floor is low", encoding="utf-8")
    Path("empty.toml").touch()
    Path("bytes.toml").write_bytes(b"\xff\xfe = 1")
    written(Path("orphan.toml"), noise=0.1)
    written(Path("other.toml"), family="spacing_mdn")
    written(Path("patience.toml"), patience_steps="long")
    written(Path("preset.toml"), preset=3)
    with pytest.raises(PlanError) as caught:
        chosen(text, family, searched.root.parent)
    assert [part for part in said if part not in str(caught.value)] == [], caught.value


def test_a_candidate_of_no_run_names_the_runs_there_are(searched: RunPaths) -> None:
    with pytest.raises(RunNotFound, match=r"run 'theirs': not found in .*; there: mine"):
        chosen("theirs/c0001", None, searched.root.parent)


# --- the command line ------------------------------------------------------------------------------------------------


class Desk(Shell):
    """A shell in a folder with files of its own, that runs `ab` and `race`."""

    def __call__(self, *words: str) -> tuple[int, str, str]:
        try:
            code = main([*words, *self.places])
        except SystemExit as error:
            code = int(error.code or 0)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def ab(self, *words: str) -> tuple[int, str, str]:
        return self("ab", "control", "good", "--family", FAMILY, *words)

    def race(self, *words: str) -> tuple[int, str, str]:
        return self("race", FAMILY, "--preset", "good", *words)

    def frozen(self, name: str) -> dict[str, Any]:
        return tomllib.loads((self.folder / "runs" / name / "plan.toml").read_text())


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    written(Path("a.toml"), family=FAMILY, preset="control")
    written(Path("same.toml"), family=FAMILY, floor=1.0)
    written(Path("worse.toml"), family=FAMILY, preset="control", floor=9.0)
    written(Path("typo.toml"), family=FAMILY, flor=9.0)
    written(Path("lost.toml"), family=FAMILY, preset="lost")
    written(Path("elsewhere.toml"), family=FAMILY, data="absent")
    written(Path("search.toml"), **fields())
    return Desk(tmp_path, capsys)


PAIRS = ["--steps", "40", "--seeds", "6"]


@pytest.mark.parametrize(
    "words",
    [
        ["control", "good", "--family", FAMILY, *PAIRS],
        [
            "a.toml",
            "worse.toml",
            "--steps",
            "40",
            "--seeds",
            "7",
            "42",
            "1",
            "2",
            "3",
            "--test",
            "e_process",
            "--bisect",
        ],
        ["e4-vs-e5"],
        ["e4-vs-e5", "--bisect", "--alpha", "0.1", "--set", "seeds=[1,2,3,4,5,6,7,8]"],
    ],
)
def test_a_comparison_is_shown_and_nothing_is_made(desk: Desk, words: list[str]) -> None:
    code, out, err = desk("ab", *words, "--dry-run")
    assert (code, err) == (0, "")
    assert "pairs" in out or "seeds" in out
    assert not (desk.folder / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        [FAMILY, "--preset", "good", "--seeds", "7", "42", "1", "--steps", "40", "--keep", "1", "--then", "80"],
        ["e55-race"],
    ],
)
def test_a_race_is_shown_and_nothing_is_made(desk: Desk, words: list[str]) -> None:
    code, out, err = desk("race", *words, "--dry-run")
    assert (code, err) == (0, "")
    assert "seeds" in out
    assert not (desk.folder / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["--steps: missing"]),
        (["--steps", "40", "--seeds", "1"], ["seeds = 1: 1 pair;", "at least 5"]),
        (["--steps", "40", "--seeds", "4"], ["seeds = 4: 4 pairs;", "at least 5"]),
        (["--steps", "40", "--seeds", "7", "42", "1"], ["seeds = 7 42 1: 3 pairs;", "at least 5"]),
        (["--steps", "40", "--seeds", "7", "7", "1", "2", "3", "4"], ["seeds: [7] repeated"]),
        (["--steps", "40", "--seeds", "5"], ["compare.test = 'sign_flip'", "5 seeds", "e_process"]),
        (["--steps", "40", "--seeds", "17"], ["seeds = 17", "5 to 16 pairs"]),
        ([*PAIRS, "--alpha", "0.7"], ["compare.alpha = 0.7", "less than 0.5"]),
        ([*PAIRS, "--region", "-1"], ["compare.region = -1.0", "greater than or equal to 0"]),
        ([*PAIRS, "--max-probes", "0"], ["compare.max_probes = 0", "greater than or equal to 1"]),
        ([*PAIRS, "--test", "anova"], ["--test", "'anova'", "sign_flip"]),
        ([*PAIRS, "--eval-every", "15"], ["until_step = 40", "multiple of eval_every = 15"]),
        (["--steps", "-40", "--seeds", "6"], ["steps = -40", "each is 1 to"]),
        (["--steps", "0", "--seeds", "6"], ["steps = 0", "each is 1 to"]),
        (["--steps", "10007", "--seeds", "6"], ["steps = 10007", "give eval_every"]),
        ([*PAIRS, "--set", "nosuch=1"], ["nosuch = 1", "there is no such key"]),
    ],
)
def test_a_comparison_that_could_say_nothing_is_refused(desk: Desk, words: list[str], said: list[str]) -> None:
    code, _, err = desk.ab(*words)
    assert code == 2
    assert [part for part in said if part not in err] == [], err
    assert not (desk.folder / "runs").exists()


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        (["a.toml", "e4"], ["A is of family 'tests.worlds.family:FAMILY', B of 'spacing_mdn'"]),
        (["a.toml", "same.toml"], ["'same' and the control 'a' are the same config"]),
        (["control", "control", "--family", FAMILY], ["are the same config"]),
        (["a.toml", "elsewhere.toml"], ["data differs", "none", "absent", "fixed.data"]),
        (["a.toml", "typo.toml"], ["'typo'", "flor = 9.0", "there is no such key"]),
        (["a.toml", "lost.toml"], ["preset 'lost'", "known: control"]),
        (["a.toml", "nobody"], ["'nobody'"]),
        (["control", "good", "--family", "nosuch"], ["nosuch", "spacing_mdn"]),
    ],
)
def test_sides_that_cannot_be_compared_are_refused(desk: Desk, sides: list[str], said: list[str]) -> None:
    code, _, err = desk("ab", *sides, *PAIRS)
    assert code == 2
    assert [part for part in said if part not in err] == [], err
    assert not (desk.folder / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ab", "search.toml"], ["search.toml: not a comparison plan", "tune-rh search"]),
        (["ab", "nosuch"], ["'nosuch'", "e4-vs-e5"]),
        (["ab", "e4-vs-e5", "--steps", "40"], ["--steps: belong to A and B", "--set"]),
        (["race", "search.toml"], ["search.toml: not a race", "'candidate'", "tune-rh search"]),
        (["race", "e4-vs-e5"], ["not a race"]),
        (["race", "e55-race", "--keep", "1"], ["--keep: belong to --preset", "--set"]),
        (["race", "e55-race", "--patience", "500"], ["--patience: belong to --preset"]),
        (
            ["race", "nosuch", "--preset", "good", "--seeds", "1", "2", "--steps", "9", "--keep", "1", "--then", "18"],
            ["nosuch"],
        ),
    ],
)
def test_a_plan_of_another_kind_is_refused(desk: Desk, words: list[str], said: list[str]) -> None:
    code, _, err = desk(*words)
    assert code == 2
    assert [part for part in said if part not in err] == [], err
    assert not (desk.folder / "runs").exists()


def race_words(**changes: str | None) -> list[str]:
    words = {"--seeds": "7 42 1", "--steps": "40", "--keep": "2", "--then": "80", **changes}
    return [word for name, value in words.items() if value is not None for word in (name, *value.split())]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (race_words(**{"--keep": "4"}), ["keep = 4: more than the 3 seeds"]),
        (race_words(**{"--keep": "0"}), ["top = 0", "greater than or equal to 1"]),
        (race_words(**{"--seeds": "7 7 1"}), ["seeds: [7] repeated"]),
        (race_words(**{"--then": None}), ["--then: missing"]),
        (race_words(**{"--keep": None, "--seeds": None}), ["--seeds, --keep: missing"]),
        (race_words(**{"--then": "40"}), ["stages[1].until_step = 40 must be above 40"]),
        (
            race_words(**{"--patience": "15", "--eval-every": "20"}),
            ["patience_steps = 15", "multiple of eval_every = 20"],
        ),
        (race_words(**{"--seeds": "seven"}), ["--seeds", "'seven'"]),
        (race_words(**{"--set": "nosuch=1"}), ["nosuch = 1", "there is no such key"]),
    ],
)
def test_a_race_that_cannot_be_run_is_refused(desk: Desk, words: list[str], said: list[str]) -> None:
    code, _, err = desk.race(*words)
    assert code == 2
    assert [part for part in said if part not in err] == [], err
    assert not (desk.folder / "runs").exists()
