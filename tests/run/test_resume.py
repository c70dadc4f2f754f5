"""A run goes on where it was, after kill -9 and after a clean stop; and what a resume refuses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.worlds import driver, journals
from tests.worlds.records import SMALL, NoMirror, decided, events, finish, make, of, open_search
from tune_rh.errors import JournalCorrupt, RunExists, RunMismatch, RunNotFound
from tune_rh.record.events import Evaluated, Event, SessionEnded, SessionStarted
from tune_rh.record.events import Tested as ReadOfTest
from tune_rh.record.journal import RunPaths
from tune_rh.run import runs
from tune_rh.run.local_runner import LocalRunner
from tune_rh.watch.follower import Follower


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """No study, and no waiting for the disk: neither decides anything."""
    monkeypatch.setattr("tune_rh.watch.study.StudyMirror", NoMirror)
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


# --- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """The search that nobody disturbed."""
    paths = make(tmp_path_factory.mktemp("whole") / "run", **SMALL)
    finish(paths)
    return paths


def leave(paths: RunPaths, num_events: int) -> None:
    """Cut the journal off after so many events: a kill in the middle of a write leaves a part of those of one step."""
    lines = paths.journal.read_bytes().splitlines(keepends=True)
    assert len(lines) >= num_events
    paths.journal.write_bytes(b"".join(lines[:num_events]))


def drive(paths: RunPaths, kill_after: int) -> None:
    """Search in a process of its own, which is killed after so many events."""
    before = len(events(paths))
    driver.killed(paths.root, paths.root.parent, kill_after)
    leave(paths, before + 1 + kill_after)


class Killed(BaseException):
    """Stands for kill -9 inside this process: no handler of the code under test catches it."""


def cut(paths: RunPaths, kill_after: int) -> None:
    """As `drive`, but without a process of its own."""
    before = len(events(paths))
    run, search = open_search(paths)
    count = 0

    def watch(_event: Event) -> None:
        nonlocal count
        count += 1
        if count == kill_after:
            raise Killed

    search.listeners.append(watch)
    with pytest.raises(Killed):
        LocalRunner(run).run(search)
    run.journal.close()
    follower = search.listeners[0]
    assert isinstance(follower, Follower)
    follower._events.put(None)  # its thread would have gone with the process
    if follower._has_begun:
        follower._thread.join()
    leave(paths, before + 1 + kill_after)


def check_nothing_ran_twice(paths: RunPaths) -> None:
    """A step is heard twice only if no checkpoint of it was left: nothing finished runs again."""
    reports = Counter((e.member, e.step) for e in of(paths, Evaluated))
    assert [again for again in reports.items() if again[1] > 2] == []
    gates = {stage["until_step"] for stage in SMALL["stages"]}
    assert [key for key, times in reports.items() if times > 1 and key[1] in gates] == []
    tests = Counter(e.member for e in of(paths, ReadOfTest))
    assert set(tests.values()) == {1}


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(("end", "kill_after"), [(cut, 4), (drive, 17), (cut, 28)])
def test_a_killed_driver_loses_nothing(
    tmp_path: Path, uninterrupted: RunPaths, end: Callable[[RunPaths, int], None], kill_after: int
) -> None:
    paths = make(tmp_path / "run", **SMALL)
    end(paths, kill_after)
    assert len(events(paths)) == kill_after + 2
    assert not isinstance(events(paths)[-1], SessionEnded)
    finish(paths)
    assert decided(paths) == decided(uninterrupted)
    check_nothing_ran_twice(paths)


@pytest.mark.usefixtures("light")
def test_killed_over_and_over(tmp_path: Path, uninterrupted: RunPaths) -> None:
    paths = make(tmp_path / "run", **SMALL)
    for kill_after in (7, 13):
        drive(paths, kill_after)
    finish(paths)
    assert [e.session for e in of(paths, SessionStarted)] == [1, 2, 3]
    assert decided(paths) == decided(uninterrupted)


@pytest.mark.usefixtures("light")
def test_killed_after_one_event_or_another(tmp_path: Path, uninterrupted: RunPaths) -> None:
    """As kill -9 at every other event of a search, but without a process each time."""
    expected, num = decided(uninterrupted), len(events(uninterrupted))
    for kill_after in range(1, num - 2, 2):
        paths = make(tmp_path / f"run-{kill_after}", **SMALL)
        cut(paths, kill_after)
        finish(paths)
        assert decided(paths) == expected, events(paths)[kill_after + 1]
        check_nothing_ran_twice(paths)


@pytest.mark.parametrize("lost", ["study.db", "torn line"])
def test_what_a_crash_may_leave_behind_is_made_good(tmp_path: Path, uninterrupted: RunPaths, lost: str) -> None:
    paths = make(tmp_path / "run", **SMALL)
    cut(paths, 23)
    if lost == "study.db":
        paths.study.unlink()
        finish(paths)
    else:
        with paths.journal.open("ab") as file:
            file.write(b'{"event":"Evaluated","member":"c00')
        with pytest.warns(UserWarning, match="dropped a torn last line"):
            finish(paths)
    assert decided(paths) == decided(uninterrupted)
    assert study_facts(paths) == study_facts(uninterrupted)


def study_facts(paths: RunPaths) -> list[Any]:
    trials = optuna.load_study(study_name=None, storage=f"sqlite:///{paths.study}").get_trials()
    return [(t.user_attrs["candidate"], t.state, t.value, t.intermediate_values, t.params) for t in trials]


# --- a clean stop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_after", [3, 10, 22])
def test_stopped_and_resumed_gives_the_same_records(tmp_path: Path, uninterrupted: RunPaths, stop_after: int) -> None:
    paths = make(tmp_path / "run", **SMALL)
    run, search = open_search(paths)
    count = 0

    def watch(_event: Event) -> None:
        nonlocal count
        count += 1
        if count == stop_after:
            search.request_stop()

    search.listeners.append(watch)
    LocalRunner(run).run(search)
    assert search.stopping
    assert search.history.running == {}
    search.close("interrupted")
    assert of(paths, SessionEnded)[-1].reason == "interrupted"
    assert not paths.stop_request.exists()
    stopped_at = len(events(paths))
    finish(paths)
    assert len(events(paths)) > stopped_at
    assert decided(paths) == decided(uninterrupted)
    # Every worker had saved: not one step is heard twice.
    assert set(Counter((e.member, e.step) for e in of(paths, Evaluated)).values()) == {1}
    assert study_facts(paths) == study_facts(uninterrupted)


# --- what a resume refuses -------------------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path, light: None) -> RunPaths:
    """A run that was cut off."""
    paths = make(tmp_path / "run", **SMALL)
    run, search = open_search(paths)
    search.request_stop()
    LocalRunner(run).run(search)
    search.close("interrupted")
    return paths


def test_a_changed_plan_is_refused_by_name(begun: RunPaths) -> None:
    text = begun.plan.read_text()
    assert "num_candidates = 4" in text
    begun.plan.write_text(text.replace("num_candidates = 4", "num_candidates = 5"))
    with pytest.raises(
        RunMismatch, match=r"run 'run' cannot go on as it was:\n  the plan .*plan\.toml\) was changed: was"
    ):
        runs.open_run(begun, begun.root.parent)
    # Resources are not part of what decisions depend on.
    begun.plan.write_text(text.replace("max_failures = 0", "max_failures = 1"))
    runs.open_run(begun, begun.root.parent).journal.close()


def test_changed_data_is_refused_by_name(begun: RunPaths) -> None:
    (begun.root.parent / "changed").write_text("x")
    with pytest.raises(
        RunMismatch, match=r"\n  the data set 'none' in .* is another one: was [0-9a-f]{64}, is [0-9a-f]{64}$"
    ):
        runs.open_run(begun, begun.root.parent)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("journal_schema", 0, "the journal is of another version of tune-rh: was 0, is 4"),
        (
            "config_schema",
            "abc",
            "the config fields of tests.worlds.family:FAMILY have changed in the code: was abc, is ",
        ),
    ],
)
def test_a_changed_schema_is_refused_by_name(begun: RunPaths, field: str, value: Any, said: str) -> None:
    first, *rest = journals.texts(begun.journal)
    journals.write(begun.journal, [json.dumps({**json.loads(first), field: value}), *rest])
    before = begun.journal.read_bytes()
    with pytest.raises(RunMismatch) as caught:
        runs.open_run(begun, begun.root.parent)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
    assert begun.journal.read_bytes() == before


def test_everything_that_differs_is_said_at_once(begun: RunPaths) -> None:
    begun.plan.write_text(begun.plan.read_text().replace("num_candidates = 4", "num_candidates = 5"))
    (begun.root.parent / "changed").write_text("x")
    with pytest.raises(RunMismatch) as caught:
        runs.open_run(begun, begun.root.parent)
    assert len(str(caught.value).splitlines()) == 3


def test_a_journal_that_somebody_edited_is_refused(begun: RunPaths) -> None:
    lines = begun.journal.read_text().splitlines(keepends=True)
    begun.journal.write_text("".join([lines[0], "{}\n", *lines[1:]]))
    with pytest.raises(JournalCorrupt, match="line 2 of"):
        runs.open_run(begun, begun.root.parent)
    begun.journal.write_text("")
    with pytest.raises(RunMismatch, match="nothing was started"):
        runs.open_run(begun, begun.root.parent)


def test_a_run_is_made_once_and_found_by_name(begun: RunPaths) -> None:
    with pytest.raises(RunExists, match=r"run 'run' exists in .*go on with `tune-rh resume run --runs-dir .*`"):
        make(begun.root, **SMALL)
    assert runs.find("run", begun.root.parent).root == begun.root
    with pytest.raises(RunNotFound, match=r"run 'other': not found in .*; there: run"):
        runs.find("other", begun.root.parent)
