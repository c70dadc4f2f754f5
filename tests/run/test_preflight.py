"""What the checks before launch find is said at once, and only what refuses keeps a run from starting."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import tune_rh
from tests.worlds.plans import fold, plan
from trainables.api import Finding
from trainables.registry import build_config, get_family
from tune_rh.api import Run
from tune_rh.errors import PlanError, PreflightRefused
from tune_rh.plan.schema import Plan, Resources
from tune_rh.preflight.environment import MIB, Node, survey
from tune_rh.record.events import CandidateAdded, FindingAccepted
from tune_rh.record.journal import RunPaths, read
from tune_rh.run.execute import Place, Precautions
from tune_rh.run.preflight import check_machine, check_past, refuse


def test_all_that_refuse_are_said_at_once_and_the_same_thing_once() -> None:
    leak = Finding("T05", "task.evaluate", "differs the second time")
    findings = [
        leak,
        Finding("P21", "save_every", "little room", "warn"),
        Finding("T01", "task", "cannot be made"),
        leak,
    ]
    with pytest.raises(PreflightRefused) as refused:
        refuse(findings)
    assert str(refused.value).splitlines() == [
        "T05 task.evaluate: differs the second time",
        "T01 task: cannot be made",
        "To go on all the same: --accept T05 --accept T01",
    ]


def test_what_is_accepted_refuses_nothing() -> None:
    findings = [Finding("P20", "save_every", "not set"), Finding("P10", "preset 'a'", "float32")]
    refuse(findings, {"P10", "P20"})
    with pytest.raises(PreflightRefused, match=r"^P10 preset 'a': float32\nTo go on all the same: --accept P10$"):
        refuse(findings, {"P20"})


def test_warnings_refuse_nothing() -> None:
    refuse([Finding("P21", "save_every", "little room", "warn")])


def test_a_machine_that_is_too_small_is_refused(tmp_path: Path) -> None:
    env = survey(Resources(), tmp_path)
    cores = os.cpu_count()
    assert check_machine(plan(), env) == []
    assert [str(f) for f in check_machine(plan(resources={"cpu": 4096}), env)] == [
        f"P80 resources.cpu = 4096: this machine has {cores}"
    ]
    unknown = survey(Resources(cpu=4096), tmp_path, address="head:6379")
    assert check_machine(plan(resources={"cpu": 4096}), unknown) == []
    labelled = plan(resources={"labels": {"market": "spot"}, "custom": {"fpga": 1}, "memory_gib": 1e6})
    places = Place(tmp_path), Place(tmp_path, runner="local"), Place(tmp_path, address="head:6379")
    own, here, joined = (place.survey(labelled, tmp_path) for place in places)
    assert [f.part for f in check_machine(labelled, own)] == [
        "resources.custom.fpga = 1",
        "resources.labels.market = 'spot'",
    ]
    assert check_machine(labelled, here) == check_machine(labelled, joined) == []
    no_gpu = replace(env, device="cuda", nodes=(Node(4, 0),))
    assert [f.part for f in check_machine(plan(resources={"gpu": 1.0}), no_gpu)] == ["resources.gpu = 1"]
    (full,) = check_machine(plan(), replace(env, free_disk=2**20))
    assert str(full) == "P21 disk: 1 MiB (0.00 GiB) free; a run needs 256 MiB (0.25 GiB) at the least"


def search(plan: Plan, tmp_path: Path, said: list[str], *accept: str) -> Run:
    return tune_rh.search(plan, runs_dir=tmp_path, data_dir=tmp_path, runner="local", say=said.append, accept=accept)


def test_a_refused_plan_leaves_nothing_and_an_accepted_finding_stands_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, said = plan(num_candidates=1, stages=[{"until_step": 10, "num_seeds": 1}]), list[str]()
    monkeypatch.setattr("tune_rh.preflight.environment.shutil.disk_usage", lambda folder: SimpleNamespace(free=5 * MIB))
    with pytest.raises(PreflightRefused, match=r"P21 disk: 5 MiB .*\nTo go on all the same: --accept P21$"):
        search(small, tmp_path, said)
    assert not (tmp_path / small.name).exists()
    run = search(small, tmp_path, said, "P21")
    events = [event for event in read(RunPaths(run.root).journal) if isinstance(event, FindingAccepted)]
    assert [(event.id, event.part) for event in events] == [("P21", "disk")]
    assert any(line.startswith("accepted: P21 disk: 5 MiB") for line in said)
    # It holds for later sessions, and is recorded once.
    tune_rh.resume(small.name, runs_dir=tmp_path, data_dir=tmp_path, runner="local")
    assert sum(isinstance(event, FindingAccepted) for event in read(RunPaths(run.root).journal)) == 1


def test_what_is_accepted_is_the_id_of_a_finding(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="--accept p21: is not the id of a finding, such as P20"):
        search(plan(), tmp_path, [], "p21")


def test_a_law_that_a_task_cannot_hold_is_accepted_by_name() -> None:
    assert Precautions(frozenset({"state", "evaluation", "seed", "code"})).accept == {"T05", "T03", "T07", "P47"}


def test_a_config_that_is_built_otherwise_than_it_was_is_not_gone_on_with(tmp_path: Path) -> None:
    config = build_config(get_family("tests.worlds.family:FAMILY"), preset="control")
    fields = config.model_dump(mode="json")
    pinned = [
        CandidateAdded("c0000", fields, config.digest(), "control", "control"),
        CandidateAdded("c0001", {**fields, "floor": 0.25}, config.digest(), "preset", "changed"),
        CandidateAdded("c0002", {**fields, "floor": 99.0}, config.digest(), "preset", "no config"),
    ]
    changed, wrong = check_past(fold(plan(), pinned))
    other = build_config(get_family("tests.worlds.family:FAMILY"), {"floor": 0.25})
    assert str(changed) == f"P42 c0001: its config was {config.digest()}, and is {other.digest()}"
    assert "is no valid config: floor = 99.0" in str(wrong)
