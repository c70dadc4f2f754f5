"""Configs with None, infinity, tuples, enums, sets and models inside, through the commands that hand them on."""

from __future__ import annotations

import json
import math
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.worlds import journals, plans
from tests.worlds.typed import FAMILY
from trainables.registry import build_config
from trainables.spelling import equal, read_config, spelt
from trainables.worker import exported
from tune_rh import api
from tune_rh.cli.main import main
from tune_rh.errors import PlanError
from tune_rh.plan.configs import named_config
from tune_rh.run.chosen import chosen, resolved

pytestmark = pytest.mark.usefixtures("no_drawing")

FAMILY_NAME = "tests.worlds.typed:FAMILY"


def fields(**changes: Any) -> dict[str, Any]:
    stages = [{"until_step": 10, "num_seeds": 1}, {"until_step": 20, "num_seeds": 1}]
    small = {"num_candidates": 4, "seeds": [1, 2], "stages": stages, "presets": ["unclipped", "deep", "loose"]}
    return plans.fields(family=FAMILY_NAME, space="tests.worlds.typed:SPACE", **{**small, **changes})


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of a search over every preset of the family and one draw."""
    runs = tmp_path_factory.mktemp("typed")
    (runs / "plan.toml").write_text(tomli_w.dumps(fields()))
    places = ["--runs-dir", str(runs), "--data-dir", str(runs)]
    assert main(["search", str(runs / "plan.toml"), "--runner", "local", *places]) == 0
    return runs


def test_every_member_trains_the_config_that_its_candidate_is(ran: Path) -> None:
    run = api.load("scripted", ran)
    presets = [build_config(FAMILY, preset=name) for name in ("control", "unclipped", "deep", "loose")]
    for candidate, config in zip(run.run.candidates.values(), presets, strict=False):
        assert equal(build_config(FAMILY, written=[candidate.config]), config)
    assert {member.status for member in run.run.members.values()} <= {"completed", "parked"}


def test_a_candidate_is_given_as_the_config_that_ran(ran: Path) -> None:
    for name, candidate in api.load("scripted", ran).run.candidates.items():
        config = resolved(chosen(f"scripted/{name}", None, ran))
        assert spelt(config) == candidate.config


def test_an_export_holds_the_config_with_its_nones(ran: Path, tmp_path: Path) -> None:
    api.load("scripted", ran).export(tmp_path / "out", "c0002")
    written = tomllib.loads((tmp_path / "out" / exported.CONFIG).read_text())
    assert written["block"]["clip"] == "@none"
    config = build_config(FAMILY, preset="deep")
    assert equal(read_config(type(config), written), config)
    assert equal(resolved(chosen(str(tmp_path / "out"), None, ran)), config)
    exported.load(tmp_path / "out")


def test_a_comparison_with_a_candidate_is_with_its_own_config(
    ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["control", "scripted/c0001", "--family", FAMILY_NAME, "--steps", "20", "--seeds", "6"]
    shutil.copytree(ran / "scripted", tmp_path / "scripted")
    places = ["--runs-dir", str(tmp_path), "--data-dir", str(tmp_path), "--runner", "local", "--name", "ab"]
    assert main(["ab", *words, *places]) == 0
    both = list(api.load("ab", tmp_path).run.candidates.values())
    config = build_config(FAMILY, written=[both[1].config])
    assert (config.clip, config.schedule) == (math.inf, None)
    assert equal(config, build_config(FAMILY, preset="unclipped"))


def test_a_candidate_that_is_another_config_now_is_refused(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ran / "scripted", tmp_path / "scripted")
    journal = tmp_path / "scripted" / "journal.jsonl"
    digest = build_config(FAMILY, preset="unclipped").digest()
    assert digest in journal.read_text()
    journals.write(journal, [text.replace(digest, "0" * 64) for text in journals.texts(journal)])
    with pytest.raises(PlanError, match=r"scripted/c0001: is read as another config .* recorded 000000000000"):
        chosen("scripted/c0001", None, tmp_path)


def test_none_and_infinity_are_spelt_in_a_plan_and_by_set(tmp_path: Path) -> None:
    text = tomli_w.dumps(fields(control="mine", configs={"mine": {"fields": {"schedule": "@none"}}}))
    (tmp_path / "plan.toml").write_text(text + '\n[fixed]\nrate = inf\noptions = {clip = "@none", least = -inf}\n')
    plan = api.load_plan(tmp_path / "plan.toml", "fixed.folder=@text:@none", "fixed.betas=[0.5, inf]")
    config, _ = named_config(plan, "mine")
    assert config.schedule is None
    assert config.rate == math.inf
    assert config.options == {"clip": None, "least": -math.inf}
    assert config.folder == Path("@none")
    assert config.betas == (0.5, math.inf)
    (tmp_path / "frozen.toml").write_text(plan.toml())
    assert api.load_plan(tmp_path / "frozen.toml").fingerprint() == plan.fingerprint()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("fixed.schedule=none", "fixed.schedule = 'none': may be None or the text; write \"@none\" for None,"),
        ('fixed.options={a = ["Null"]}', "fixed.options.a.0 = 'Null': may be None or the text"),
        ("fixed.clip=none", "fixed: clip = 'none': Input should be a valid number; None is written \"@none\""),
        ("fixed.rate=@none", "rate = None: Input should be a valid number"),
        ("eval_every=inf", "eval_every = inf: numbers in a plan are finite"),
    ],
)  # fmt: skip
def test_what_may_be_meant_as_none_is_asked_about(
    tmp_path: Path, option: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.toml").write_text(tomli_w.dumps(fields()))
    places = ["--runs-dir", str(tmp_path / "runs"), "--data-dir", str(tmp_path)]
    assert main(["search", str(tmp_path / "plan.toml"), "--dry-run", "--set", option, *places]) == 2
    assert said in capsys.readouterr().err


def test_text_that_says_it_is_text_is_taken(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(tomli_w.dumps(fields()))
    words = ["search", str(tmp_path / "plan.toml"), "--dry-run", "--set", "presets=[]", "--set"]
    assert main([*words, "fixed.options={a = '@text:none'}"]) == 0
    assert main([*words, "fixed.mode=none"]) == 0


def test_a_draw_is_journaled_as_it_was_drawn(ran: Path) -> None:
    lines = [json.loads(line) for line in (ran / "scripted" / "journal.jsonl").read_text().splitlines()]
    (drawn,) = (line for line in lines if line.get("origin") == "sampler")
    assert drawn["params"]["clip"] in (None, 0.5, "@inf")
    assert drawn["params"]["schedule"] in (None, "cos", "@text:@none")
    assert all(drawn["config"][name] == drawn["params"][name] for name in ("clip", "schedule"))
