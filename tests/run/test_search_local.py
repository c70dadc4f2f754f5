"""Whole searches in process on the scripted family: retries, losses."""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from analysis.reports.page.facts import gather
from analysis.tables import RunTables
from tests.worlds.family import ScriptedTask
from tests.worlds.records import SMALL, NoMirror, decided, events, finish, make, of, records, steps_heard
from tune_rh.errors import StorageError
from tune_rh.record.events import (
    CandidateAdded,
    Evaluated,
    Halted,
    JobEnded,
    JobRetried,
    JobStarted,
    MemberId,
    Promoted,
    RunCreated,
    SessionEnded,
    SessionStarted,
    SpaceExhausted,
)
from tune_rh.record.journal import RunPaths
from tune_rh.record.ranking import about_draws, ranking
from tune_rh.results import reading


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """No study, and no waiting for the disk: neither decides anything."""
    monkeypatch.setattr("tune_rh.watch.study.StudyMirror", NoMirror)
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


def test_a_search_finishes_and_leaves_its_records(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **SMALL)
    history = finish(paths)
    found = events(paths)
    assert isinstance(found[0], RunCreated)
    assert isinstance(found[1], SessionStarted)
    assert isinstance(found[-1], SessionEnded)
    assert found[-1].reason == "finished"
    assert [c.added.origin for c in history.candidates.values()] == [
        "control",
        "preset",
        "preset",
        "sampler",
        "sampler",
    ]
    assert history.running == {}
    assert history.incomplete == [0, 0, 0]
    ranked = ranking(history)
    assert [row.bound for row in ranked] == sorted(row.bound for row in ranked)
    assert {row.candidate for row in ranked} == {c.id for c in history.candidates.values() if c.stage == 2}
    assert all(row.test == pytest.approx(row.val + 0.125) for row in ranked)
    for candidate in history.candidates.values():
        for member in candidate.members.values():
            assert steps_heard(paths, member.id) == member.curve.steps
    trials = optuna.load_study(study_name=None, storage=f"sqlite:///{paths.study}").get_trials()
    assert Counter(t.state.name for t in trials)["FAIL"] == 1
    assert Counter(t.state.name for t in trials)["COMPLETE"] == len(ranked)
    assert not paths.stop_request.exists()
    # Once finished there is nothing left to do.
    before = records(paths)
    finish(paths)
    assert records(paths) == before


@pytest.mark.usefixtures("light")
def test_divergence_is_data(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **SMALL)
    finish(paths)
    (label,) = [e.candidate for e in of(paths, CandidateAdded) if e.label == "diverging"]
    ended = [e for e in of(paths, JobEnded) if e.member.candidate == label]
    assert [(e.outcome, e.reason) for e in ended] == [("diverged", "non-finite loss at step 5")]
    assert [(e.step, e.diverged) for e in of(paths, Evaluated) if e.member.candidate == label] == [(5, True)]
    assert not [e for e in of(paths, Promoted) if e.candidate == label]


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("max_failures", [0, 2])
def test_a_member_that_fails_is_tried_again_then_recorded_with_its_traceback(tmp_path: Path, max_failures: int) -> None:
    changes = {**SMALL, "presets": ["failing", "good"], "resources": {"max_failures": max_failures}}
    paths = make(tmp_path / "run", **changes)
    built: list[MemberId] = []
    with pytest.MonkeyPatch.context() as patch:
        from tune_rh.run import local_runner

        run_member = local_runner.MemberRun
        patch.setattr(local_runner, "MemberRun", lambda job: (built.append(job.member), run_member(job))[1])
        history = finish(paths)
    assert Counter(built)[MemberId("c0001", 7)] == max_failures + 1
    (ended,) = [e for e in of(paths, JobEnded) if e.member == MemberId("c0001", 7)]
    assert ended.outcome == "failed"
    assert "Traceback (most recent call last)" in ended.reason
    assert ended.reason.endswith("RuntimeError: scripted failure at step 5")
    statuses = {str(m.id): m.status for c in history.candidates.values() for m in c.members.values()}
    assert [member for member, status in statuses.items() if status == "failed"] == ["c0001-s7"]
    assert history.num_candidates() == 4
    assert len(ranking(history)) >= 2


@pytest.mark.usefixtures("light")
def test_a_failure_that_goes_away_changes_nothing(tmp_path: Path) -> None:
    def search(name: str, **fixed: Any) -> RunPaths:
        changes = {"presets": [], "fixed": {"noise": 0.02, **fixed}, "resources": {"max_failures": 1}}
        paths = make(tmp_path / name, **{**SMALL, **changes})
        finish(paths)
        return paths

    marker = tmp_path / "failed-once"
    plain, failed = search("plain"), search("failed", fail_at=13, fail_marker=str(marker))
    assert marker.exists()
    one, two = decided(plain), decided(failed)
    assert [two.pop("candidates") != one.pop("candidates"), two] == [True, one]
    assert steps_heard(failed, MemberId("c0000", 7)) == [10, 20, 30, 40, 50, 60]
    assert {e.outcome for e in of(failed, JobEnded)} == {"parked", "completed", "tested"}


@pytest.mark.usefixtures("light")
def test_a_retry_is_on_record_and_repeats_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The curve rises from its first report on, so that the only checkpoint before the gate is that of step 10."""
    fixed = {"span": -1.0, "fail_at": 43, "fail_marker": str(tmp_path / "failed-once")}
    changes = {"presets": [], "num_candidates": 1, "fixed": fixed, "resources": {"max_failures": 1}}
    stages = [{"until_step": 60, "num_seeds": 1}]
    monkeypatch.setattr("socket.gethostname", lambda: "h1")
    paths = make(tmp_path / "run", **{**SMALL, **changes, "seeds": [7], "stages": stages})
    finish(paths)
    (lost,) = of(paths, JobRetried)
    assert (lost.member, lost.from_step, lost.node, lost.pid, lost.cause) == (
        MemberId("c0000", 7), 40, "h1", os.getpid(), "exception",
    )  # fmt: skip
    assert lost.reason.startswith("RuntimeError: scripted failure at step 43 (")
    assert steps_heard(paths, MemberId("c0000", 7)) == [10, 20, 30, 40, 50, 60]
    assert [e.step for e in of(paths, Evaluated) if e.repeated_s] == [50]
    assert {e.node for e in of(paths, JobStarted)} == {"h1"}


@pytest.mark.usefixtures("light")
def test_losses_that_are_not_the_members_own_do_not_count_against_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, failures = ScriptedTask.step, 3

    def fail(task: ScriptedTask) -> dict[str, float]:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return step(task)

    monkeypatch.setattr(ScriptedTask, "step", fail)
    changes = {"presets": [], "num_candidates": 1, "resources": {"max_failures": 0, "max_losses": 3}}
    paths = make(tmp_path / "run", **{**SMALL, **changes})
    assert finish(paths).ended == "finished"
    assert [e.cause for e in of(paths, JobRetried)] == ["storage"] * 3

    failures = 4  # one more than is allowed: the session ends, the member does not
    paths = make(tmp_path / "more", **{**SMALL, **changes})
    with pytest.raises(StorageError, match="c0000-s7 could not go on: stale file handle"):
        finish(paths)
    assert [e.outcome for e in of(paths, JobEnded)] == ["interrupted"]


@pytest.mark.usefixtures("light")
def test_a_full_disk_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_task: ScriptedTask) -> dict[str, float]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ScriptedTask, "step", fail)
    paths = make(tmp_path / "run", **{**SMALL, "presets": [], "resources": {"max_failures": 2}})
    with pytest.raises(StorageError, match="the disk is full"):
        finish(paths)
    assert of(paths, JobRetried) == []


@pytest.mark.usefixtures("light")
def test_a_traceback_with_bytes_that_are_no_text_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_task: ScriptedTask) -> dict[str, float]:
        raise RuntimeError("no such file: \udcff.bin")

    monkeypatch.setattr(ScriptedTask, "step", fail)
    paths = make(tmp_path / "run", **{**SMALL, "presets": [], "num_candidates": 1})
    finish(paths)
    assert {e.error.rpartition("\n")[2] for e in of(paths, Halted)} == {"RuntimeError: no such file: ?.bin"}


# --- spaces and presets ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("light")
def test_presets_that_are_known_already_are_passed_over(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **{**SMALL, "presets": ["same-as-control", "good", "good"], "num_candidates": 2})
    history = finish(paths)
    assert [(c.added.origin, c.added.label) for c in history.candidates.values()] == [
        ("control", "control"),
        ("preset", "good"),
        ("sampler", ""),
    ]
    digests = [e.config_digest for e in of(paths, CandidateAdded)]
    assert len(set(digests)) == len(digests)


@pytest.mark.usefixtures("light")
def test_presets_inside_the_space_feed_the_sampler_and_others_do_not(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **{**SMALL, "fixed": {}, "num_candidates": 3})
    finish(paths)
    params = {e.label or e.origin: e.params for e in of(paths, CandidateAdded)}
    assert params["control"] == {"kind": "plain", "floor": 1.0, "rate": 0.01}
    assert params["good"] == {"kind": "plain", "floor": 0.25, "rate": 0.02}
    assert params["diverging"] == {}
    assert params["sampler"].keys() >= {"kind", "floor", "rate"}


@pytest.mark.usefixtures("light")
def test_a_small_space_is_exhausted_and_the_search_ends(tmp_path: Path) -> None:
    paths = make(
        tmp_path / "run", **{**SMALL, "presets": [], "space": "tests.worlds.family:SMALL", "num_candidates": 9}
    )
    history = finish(paths)
    assert len(of(paths, SpaceExhausted)) == 1
    assert [c.added.config["kind"] for c in history.candidates.values()] == ["plain", "bent"]
    assert [c.stage for c in history.candidates.values()] == [2, 2]


@pytest.mark.usefixtures("light")
def test_draws_that_are_no_config_are_passed_over_until_none_is_left(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **{**SMALL, "presets": [], "space": "tests.worlds.family:INVALID"})
    history = finish(paths)
    assert list(history.candidates) == ["c0000"]
    (exhausted,) = of(paths, SpaceExhausted)
    assert exhausted.draws == sum(exhausted.passed_over.values()) == history.passed_over.total() == 100
    *whys, others = exhausted.passed_over
    assert others == "other reasons"
    assert all(re.fullmatch(r"floor = 2\d\.\d+: Input should be .* 10", why) for why in whys)
    ended, refused = about_draws(history)
    assert "no config left after 0 of" in ended
    assert refused.startswith("100 draws were passed over as no valid config: floor = ")


@pytest.mark.usefixtures("light")
def test_a_rare_draw_that_is_no_config_is_passed_over_and_counted(tmp_path: Path) -> None:
    changes = {**SMALL, "presets": [], "space": "tests.worlds.family:RARELY_INVALID", "num_candidates": 12}
    paths = make(tmp_path / "run", **changes)
    history = finish(paths)
    assert len(history.candidates) == 13
    whys = (
        "floor = 20.0: Input should be less than or equal to 10",
        "span = 3: the space allows what d",
        "KeyError: 'b'",
    )
    assert {why for known in whys for why in history.passed_over if why.startswith(known)} == {*history.passed_over}
    assert len(history.passed_over) >= 2
    assert sum(sum(e.passed_over.values()) for e in of(paths, CandidateAdded)) == history.passed_over.total()
    (said,) = about_draws(history)
    assert said.startswith(f"{history.passed_over.total()} draws were passed over as no valid config: ")
    other = finish(make(tmp_path / "again", **changes))
    assert other.passed_over == history.passed_over


@pytest.mark.usefixtures("light")
def test_all_candidates_may_be_lost(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **{**SMALL, "fixed": {"diverge_at": 5}, "presets": []})
    history = finish(paths)
    assert {m.status for c in history.candidates.values() for m in c.members.values()} == {"diverged"}
    assert [row.candidate for row in ranking(history)] == ["c0000"]
    assert set(Counter(e.member for e in of(paths, JobStarted)).values()) == {1}


@pytest.mark.usefixtures("light")
def test_a_reading_of_test_that_fails_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = finish(make(tmp_path / "whole", **SMALL))
    read = ScriptedTask.evaluate

    def unlucky(task: ScriptedTask, split: str = "val") -> dict[str, float]:
        if split == "test" and task.seed == 42:
            raise RuntimeError("no test for this seed")
        return read(task, split)

    monkeypatch.setattr(ScriptedTask, "evaluate", unlucky)
    paths = make(tmp_path / "run", **SMALL)
    history = finish(paths)
    ended = [e for e in of(paths, JobEnded) if e.outcome == "failed" and "no test for this seed" in e.reason]
    assert ended
    for event in ended:
        member = history.member(event.member)
        assert (member.status, member.lost, member.id.seed) == ("completed", False, 42)
    told = [(row.candidate, row.val, row.num_lost) for row in ranking(history)]
    assert told == [(row.candidate, row.val, row.num_lost) for row in ranking(whole)]
    assert all(row.test == pytest.approx(row.val + 0.125, abs=0.05) for row in ranking(history))  # of the other seeds
    before = records(paths)
    finish(paths)
    assert records(paths) == before  # and is not tried for ever
    kept = reading.read(paths).run
    assert {d.kind for d in kept.decisions if d.seed == 42 and "no test" in d.reason} == {"not tested"}
    assert all(kept.members[str(e.member)].lost_stage is None for e in ended)
    assert gather(RunTables(kept), "finished").standings[0].val == ranking(whole)[0].val
