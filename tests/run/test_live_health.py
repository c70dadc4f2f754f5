"""What live health finds: it stops a member where the plan says so, whatever interrupts, and is shown everywhere."""

from __future__ import annotations

import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tune_rh
from tests.worlds.family import FAMILY as SCRIPTED
from tests.worlds.plans import fold, plan
from trainables.api import HealthCheck
from tune_rh.cli.main import main
from tune_rh.decide.scheduler import Stop, scheduler_of
from tune_rh.errors import PlanError
from tune_rh.plan.file import resolve_plan
from tune_rh.plan.schema import Plan
from tune_rh.record.events import Evaluated, Event, JobEnded, JobStarted
from tune_rh.record.journal import RunPaths, locked, read

FOUND = "H02 at step 1001: the smoothed loss, 1, has not fallen by 0.005 for 1000 steps"


def flat_plan(family: str = "tests.worlds.family:FAMILY", **live: Any) -> Plan:
    """A control and a candidate whose losses stay where they are, to step 2,000; the machine is not judged."""
    flat = {"span": 0.0, "floor": 1.0}
    return plan(
        family=family,
        configs={"flat": {"fields": flat}, "flatter": {"fields": {**flat, "rate": 0.5}}},
        control="flat",
        presets=["flatter"],
        num_candidates=1,
        seeds=[7],
        eval_every=500,
        stages=[{"until_step": 2000, "num_seeds": 1}],
        rules={"live": {**live, "off": ["H03", "H04", "H05", *live.get("off", ())]}},
    )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a run in which H02 stops members, and what was said."""
    folder, said = tmp_path_factory.mktemp("live"), list[str]()
    tune_rh.search(flat_plan(stop=["H02"]), runs_dir=folder, data_dir=folder, runner="local", say=said.append)
    return folder / "scripted", said


def events(root: Path) -> list[Event]:
    return list(read(RunPaths(root).journal))


def ends(some: list[Event]) -> list[tuple[str, str, str]]:
    return [(str(e.member), e.outcome, e.reason) for e in some if isinstance(e, JobEnded) and e.outcome != "tested"]


def test_a_rule_stops_a_member_with_its_next_report_but_not_the_control(stopped: tuple[Path, list[str]]) -> None:
    recorded = events(stopped[0])
    assert ends(recorded) == [
        ("c0000-s7", "completed", "end of the last stage"),
        ("c0001-s7", "stopped", f"health: {FOUND}"),
    ]
    reports = [event for event in recorded if isinstance(event, Evaluated)]
    assert [report.step for report in reports if report.member.candidate == "c0001"] == [500, 1000, 1500]
    assert [[str(finding) for finding in report.findings] for report in reports if report.findings] == [[FOUND]] * 2


def test_a_rule_that_only_warns_stops_nobody(tmp_path: Path) -> None:
    tune_rh.search(flat_plan(), runs_dir=tmp_path, data_dir=tmp_path, runner="local")
    assert {outcome for _, outcome, _ in ends(events(tmp_path / "scripted"))} == {"completed"}
    assert len(tune_rh.load("scripted", tmp_path).run.members["c0001-s7"].alarms) == 1


def test_a_rule_that_is_off_finds_nothing(tmp_path: Path) -> None:
    tune_rh.search(flat_plan(off=["H02"]), runs_dir=tmp_path, data_dir=tmp_path, runner="local")
    assert all(not member.alarms for member in tune_rh.load("scripted", tmp_path).run.members.values())


def test_a_rule_cannot_stop_and_be_off() -> None:
    with pytest.raises(PlanError, match="H02 is in stop and in off"):
        flat_plan(stop=["H02"], off=["H02"])
    with pytest.raises(PlanError, match=r"rules\.live\.stop\.0 = 'H99': known: H01, H02, H03, H04, H05, H06$"):
        flat_plan(stop=["H99"])
    with pytest.raises(PlanError, match=r"rules\.live\.off\.3 = 'H20': known: H01, H02, H03, H04, H05, H06, H12$"):
        flat_plan(family="tests.run.test_live_health:WATCHED", off=["H20"])


WATCHED = replace(SCRIPTED, health=(HealthCheck("health", at_most=0.25, id="H12", stops=True),))
OUT_OF_BOUNDS = "health = 0.5 for 1 report (at most 0.25)"


@pytest.mark.parametrize(
    ("live", "outcome", "alarms"),
    [
        ({}, "stopped", [("H12", 500, OUT_OF_BOUNDS)]),
        ({"stop": ["H12"]}, "stopped", [("H12", 500, OUT_OF_BOUNDS)]),
        ({"stop": []}, "completed", [("H12", 500, OUT_OF_BOUNDS), ("H02", 1001, FOUND.partition(": ")[2])]),
        ({"off": ["H12", "H02"]}, "completed", []),
    ],
)
def test_a_bound_of_the_family_is_a_rule_by_its_id(
    tmp_path: Path, live: dict[str, Any], outcome: str, alarms: list[tuple[str, int, str]]
) -> None:
    watched = flat_plan(family="tests.run.test_live_health:WATCHED", **live)
    assert resolve_plan(tomllib.loads(watched.toml())) == watched
    tune_rh.search(watched, runs_dir=tmp_path, data_dir=tmp_path, runner="local")
    member = tune_rh.load("scripted", tmp_path).run.members["c0001-s7"]
    assert (member.status, [*member.alarms]) == (outcome, alarms)


def test_the_decision_follows_from_the_journal_alone(stopped: tuple[Path, list[str]]) -> None:
    recorded, stopping = events(stopped[0]), flat_plan(stop=["H02"])
    last = max(i for i, e in enumerate(recorded) if isinstance(e, Evaluated) and e.member.candidate == "c0001")
    member = recorded[last].member  # type: ignore[union-attr]
    before = scheduler_of(stopping).verdict(fold(stopping, recorded[: last - 1]), member)
    assert not isinstance(before, Stop)
    verdict = scheduler_of(stopping).verdict(fold(stopping, recorded[: last + 1]), member)
    assert verdict == Stop("stopped", f"health: {FOUND}")


def test_a_run_that_dies_between_the_report_and_the_stop_stops_all_the_same(
    stopped: tuple[Path, list[str]], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(stopped[0], tmp_path / "scripted", symlinks=True))
    journal = RunPaths(copy).journal
    recorded = events(copy)
    last = max(i for i, e in enumerate(recorded) if isinstance(e, Evaluated) and e.member.candidate == "c0001")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: last + 1]))
    tune_rh.resume("scripted", runs_dir=tmp_path, data_dir=tmp_path, runner="local")
    member = tune_rh.load("scripted", tmp_path).run.members["c0001-s7"]
    assert (member.status, member.reason, member.steps) == ("stopped", f"health: {FOUND}", 1500)


def test_findings_are_shown_in_the_log_in_status_and_on_the_page(
    stopped: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], no_drawing: None
) -> None:
    root, _ = stopped
    assert FOUND in (root / "members" / "c0001-s7" / "train.log").read_text()
    assert main(["status", "scripted", "--runs-dir", str(root.parent)]) == 0
    assert f"c0001-s7  {FOUND}" in capsys.readouterr().out
    run = tune_rh.load("scripted", root.parent)
    page = run.report()
    for text in (page.read_text(), (page.parent / "report.md").read_text()):
        assert "Live health" in text
        assert "the smoothed loss, 1, has not fallen by 0.005 for 1000 steps" in text


def test_the_command_line_says_a_finding_as_it_comes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.toml").write_text(flat_plan().toml())
    places = ["--runs-dir", str(tmp_path), "--data-dir", str(tmp_path)]
    assert main(["search", str(tmp_path / "plan.toml"), "--runner", "local", *places]) == 0
    assert f"c0001-s7  {FOUND}" in capsys.readouterr().out.splitlines()


def test_every_member_beats(stopped: tuple[Path, list[str]]) -> None:
    lines = (stopped[0] / "members" / "c0001-s7" / "heartbeat.jsonl").read_text().splitlines()
    assert len(lines) == 150


def test_status_says_where_running_members_stand(
    stopped: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(stopped[0], tmp_path / "scripted", symlinks=True))
    journal = RunPaths(copy).journal
    lines = journal.read_bytes().splitlines(keepends=True)
    started = next(i for i, event in enumerate(events(copy)) if isinstance(event, JobStarted))
    journal.write_bytes(b"".join(lines[: started + 1]))
    with locked(RunPaths(copy)):
        assert main(["status", "scripted", "--runs-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"c0000-s7 on \S+  step 2000, [\d.]+ steps/s, loss 1\.0000; heard of \d+ s ago", said)
