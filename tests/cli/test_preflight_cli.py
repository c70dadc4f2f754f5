"""``tune-rh preflight``: everything that speaks against a launch, at once, and nothing is launched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.worlds.plans import fields
from tune_rh.cli.main import main
from tune_rh.preflight.environment import GIB, Env, Node
from tune_rh.run.execute import Place

A100 = Env("cuda", 500 * GIB, 80 * GIB, 79 * GIB, bf16=True, fused_attention=True, nodes=(Node(32, 2),))
BURNT: dict[str, Any] = {
    "name": "burnt",
    "family": "shared_moe",
    "control": "cpu-tiny",
    "presets": ["cpu-tiny-dense"],
    "fixed": {"amp": "off"},
    "num_candidates": 1,
    "seeds": [1],
    "eval_every": 500,
    "stages": [{"until_step": 50_000, "num_seeds": 1}],
    "resources": {"gpu": 1.0},
}


@pytest.fixture
def preflight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Writes a plan and checks it; the exit code and what was said."""

    def run(plan: dict[str, Any], *options: str) -> tuple[int, str]:
        (tmp_path / "plan.toml").write_text(tomli_w.dumps(plan))
        places = ["--runs-dir", str(tmp_path / "runs"), "--data-dir", str(tmp_path / "data")]
        code = main(["preflight", str(tmp_path / "plan.toml"), *places, *options])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "survey", lambda self, plan, folder: A100)


def listed(said: str) -> list[str]:
    """The verdict and the id of each line that has them."""
    return [
        " ".join(line.split()[:2])
        for line in said.splitlines()
        if line.startswith(("refused:", "accepted:", "warning:"))
    ]


@pytest.mark.usefixtures("on_a_gpu")
def test_a_burnt_run_is_refused_with_every_finding_at_once(preflight: Callable[..., tuple[int, str]]) -> None:
    code, said = preflight(BURNT)
    assert code == 3
    twice = ["P10", "P30", "P31", "P32"]
    refused = sorted([*twice, *twice, "P20"])
    assert listed(said) == [*(f"refused: {name}" for name in refused), "warning: P50"]
    assert "burnt: 9 of 10 findings refuse a launch." in said
    assert "A job takes about " in said
    assert said.count(" MiB (") == said.count(" GiB)") == 4


@pytest.mark.usefixtures("on_a_gpu")
def test_what_is_accepted_no_longer_refuses(preflight: Callable[..., tuple[int, str]]) -> None:
    options = [word for name in ("P10", "P20", "P30", "P31") for word in ("--accept", name)]
    code, said = preflight(BURNT, *options)
    assert code == 3
    assert [line for line in listed(said) if line.startswith("refused")] == ["refused: P32"] * 2
    assert preflight(BURNT, *options, "--accept", "P32")[0] == 0


def test_a_wrong_plan_is_said_with_all_that_is_wrong_and_cannot_be_accepted(
    preflight: Callable[..., tuple[int, str]],
) -> None:
    configs = {
        "no-experts": {"preset": "cpu-tiny", "fields": {"top_k": 60}},
        "no-gate": {"preset": "cpu-tiny", "fields": {"top_k": 1}},
        "no-decay": {"preset": "cpu-tiny", "fields": {"aux_loss_coef_end": 1.0}},
        "no-number": {"preset": "cpu-tiny", "fields": {"lr": True}},
        "no-range": {"preset": "cpu-tiny", "fields": {"lr": 7.0}},
    }
    plan = {**BURNT, "resources": {}, "configs": configs, "presets": [*configs], "num_candidates": 5}
    code, said = preflight({**plan, "fixed": {}}, "--accept", "P70")
    assert code == 2
    refused = [f"refused: {name}" for name in ("P01", "P02", "P70", "P71", "P72")]
    assert listed(said) == [*refused[:2], "warning: P20", "warning: P50", *refused[2:]]
    assert "refused: P70 config 'no-experts': top_k = 60: allowed is 1 to num_experts = 16" in said
    assert "refused: P01 config 'no-number': lr = True" in said


def test_what_lies_in_the_place_of_the_run_is_said(
    preflight: Callable[..., tuple[int, str]], tmp_path: Path, copy_run: Callable[[Path], Path]
) -> None:
    (tmp_path / "runs" / "scripted").mkdir(parents=True)
    assert preflight(fields(num_candidates=3))[0] == 0  # nothing began in it
    (tmp_path / "runs" / "scripted" / "notes.txt").touch()
    code, said = preflight(fields(num_candidates=3))
    assert (code, listed(said)) == (3, ["refused: P40"])
    shutil.rmtree(tmp_path / "runs" / "scripted")
    copy_run(tmp_path / "runs")
    code, said = preflight(fields(num_candidates=3))
    assert (code, listed(said)) == (3, ["refused: P41"])
    assert "it is of this very plan" in said
    assert "it is of another plan" in preflight(fields(num_candidates=4))[1]


def test_the_same_config_twice_is_warned_of(preflight: Callable[..., tuple[int, str]]) -> None:
    code, said = preflight(fields(presets=["same-as-control", "good"]))
    assert (code, listed(said)) == (0, ["warning: P43"])
    assert "'same-as-control' is the same config as 'control': it runs once" in said


def test_a_short_run_is_checked_as_a_long_one_where_that_is_asked(
    preflight: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {**BURNT, "fixed": {}, "stages": [{"until_step": 500, "num_seeds": 1}], "save_every": 500}
    monkeypatch.setattr(Place, "survey", lambda self, plan, folder: replace(A100, free_disk=GIB))
    assert preflight(short)[0] == 0
    assert set(listed(preflight(short, "--strict")[1])) >= {"refused: P30", "refused: P31", "refused: P32"}
