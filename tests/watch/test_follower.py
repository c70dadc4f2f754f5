"""Views that fail in any way: the search goes on, it is said once, and what was missed is caught up."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.watch.test_study import facts
from tests.watch.test_tensorboard import curves
from tests.worlds.records import SMALL, decided, events, finish, make
from tune_rh.record.events import Event, JobStarted
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.run import runs
from tune_rh.run.execute import Place, execute
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.runner import start_session
from tune_rh.watch import follower, study
from tune_rh.watch.follower import OpenView

SMALLER = {**SMALL, "num_candidates": 3}


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts, nor long for a lock."""
    monkeypatch.setattr(follower, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(study, "_LOCK_WAIT_S", 0.05)
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """The search as it is where everything works."""
    paths = make(tmp_path_factory.mktemp("quiet") / "run", **SMALLER)
    follow(paths)
    return paths


class Audience:
    """Keeps what is said."""

    def __init__(self, on_event: Callable[[Event], object] = lambda _event: None) -> None:
        self.said: list[str] = []
        self.say = self.said.append
        self._on_event = on_event

    def bar(self, _title: str) -> Any:
        raise AssertionError("no data is made here")

    def follow(self, *_: object) -> Any:
        return self

    def __enter__(self) -> Callable[[Event], object]:
        return self._on_event

    def __exit__(self, *_: object) -> None: ...

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.said if line.startswith("warning: ")]


def follow(paths: RunPaths, audience: Audience | None = None) -> Audience:
    """The run to its end, as the command line runs it."""
    audience = audience or Audience()
    execute(paths, Place(paths.root.parent, "local"), audience, lambda *_: None)
    return audience


def drive(paths: RunPaths, views: dict[str, OpenView], say: Callable[[str], object]) -> None:
    """The run to its end, with these views alone."""
    run = runs.open_run(paths, paths.root.parent)
    session = start_session(run, runner="local", slots=1, views=views, say=say)
    LocalRunner(run).run(session)
    session.close("finished")


# --- study.db and TensorBoard ----------------------------------------------------------------------------------------


def hold_study(paths: RunPaths) -> Callable[[], object]:
    """A lock on study.db that another process may hold."""
    holder = sqlite3.connect(paths.study, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    return lambda: holder.close()


def break_study(paths: RunPaths) -> Callable[[], object]:
    """A folder in the place of study.db."""
    paths.study.mkdir()
    return paths.study.rmdir


def break_tensorboard(paths: RunPaths) -> Callable[[], object]:
    """A file in the place of the folder of TensorBoard."""
    paths.tensorboard.write_text("x")
    return paths.tensorboard.unlink


@pytest.mark.parametrize("fault", [hold_study, break_study, break_tensorboard])
def test_a_view_that_cannot_be_written_is_said_and_caught_up_later(
    tmp_path: Path, quiet: RunPaths, fault: Callable[[RunPaths], Callable[[], object]]
) -> None:
    paths = make(tmp_path / "run", **SMALLER)
    mend = fault(paths)
    name = "tensorboard/" if fault is break_tensorboard else "study.db"
    first, last = follow(paths).warnings
    assert first.startswith(f"warning: {name}: cannot be written (")
    assert last.startswith(f"warning: {name}: behind the journal (")
    assert decided(paths) == decided(quiet)
    mend()
    assert follow(paths).warnings == []  # nothing is left to run: the views are brought up to date
    assert facts(paths.study) == facts(quiet.study)
    assert repr(curves(paths)) == repr(curves(quiet))  # NaN equals NaN


def test_a_lock_in_the_middle_is_waited_out_beside_the_search(tmp_path: Path, quiet: RunPaths) -> None:
    paths, num, locks = make(tmp_path / "run", **SMALLER), 0, list[Callable[[], object]]()

    def hold(_event: Event) -> None:
        nonlocal num
        num += 1
        if num == 9 and paths.study.exists():
            locks.append(hold_study(paths))
        elif num == 30:
            while locks:
                locks.pop()()

    audience = follow(paths, Audience(hold))
    assert not any("behind" in line for line in audience.warnings)
    assert decided(paths) == decided(quiet)
    assert facts(paths.study) == facts(quiet.study)


def test_a_study_that_a_lost_line_has_outdated_is_made_again(tmp_path: Path, quiet: RunPaths) -> None:
    paths = make(tmp_path / "run", **SMALLER)
    follow(make(tmp_path / "other" / "run", **{**SMALLER, "seeds": [1, 2]}))
    os.replace(tmp_path / "other" / "run" / "study.db", paths.study)
    follow(paths)
    assert paths.study.with_name("outdated-study.db").exists()
    assert facts(paths.study) == facts(quiet.study)


@pytest.mark.parametrize("fault", ["lost", "torn", "a record less", "a stranger", "a file"])
def test_a_member_whose_records_are_not_whole_is_written_again(tmp_path: Path, quiet: RunPaths, fault: str) -> None:
    paths = make(tmp_path / "run", **SMALLER)
    follow(paths)
    folder = next(paths.tensorboard.iterdir())
    (file, *_) = folder.iterdir()
    untouched = {path: path.stat().st_mtime_ns for path in paths.tensorboard.glob("*/*") if path.parent != folder}
    if fault == "lost":
        file.unlink()
    elif fault == "torn":
        file.write_bytes(file.read_bytes()[:-3])
    elif fault == "a record less":
        (content, last) = file.read_bytes(), 0
        at = 0
        while at < len(content):
            last, at = at, at + 16 + int.from_bytes(content[at : at + 8], "little")
        file.write_bytes(content[:last])
    elif fault == "a stranger":
        (folder.parent / "c9999-s7").mkdir()
    else:
        (folder.parent / "c9999-s7").write_text("x")
    follow(paths)
    assert repr(curves(paths)) == repr(curves(quiet))  # NaN equals NaN
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched


# --- any view --------------------------------------------------------------------------------------------------------

ERRORS = [OSError(28, "No space left on device"), ValueError("of a library\nwith a second line"), KeyError("x")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["opening", "an event"])
def test_what_a_view_raises_is_said_once_and_it_misses_nothing(tmp_path: Path, error: Exception, where: str) -> None:
    paths, said, failures = make(tmp_path / "run", **SMALLER), list[str](), 3
    seen: list[int] = []

    def fail_at(place: str) -> None:
        nonlocal failures
        if place == where and failures:
            failures -= 1
            raise error

    def opened(history: History) -> Callable[[Event], object]:
        fail_at("opening")

        def view(_event: Event) -> None:
            fail_at("an event")
            seen.append(history.steps_spent)

        return view

    drive(paths, {"it": opened}, said.append)
    assert failures == 0
    told = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    assert said == [f"warning: it: cannot be written ({told}); the search goes on, and it is caught up later"]
    assert seen[-1] == runs.replay(paths)[1].steps_spent


def test_a_view_sees_every_event_once_its_own_history_has_it(tmp_path: Path) -> None:
    paths, seen, opened = make(tmp_path / "run", **SMALLER), list[Event](), list[int]()

    def view(history: History) -> Callable[[Event], object]:
        opened.append(len(history.candidates))

        def take(event: Event) -> None:
            if isinstance(event, JobStarted):
                assert event.member in history.running
            seen.append(event)

        return take

    drive(paths, {"it": view}, pytest.fail)
    assert opened == [1]  # with the first job: the control is there
    assert repr(seen) == repr(events(paths)[-len(seen) :])  # NaN equals NaN
    assert len(seen) >= len(events(paths)) - 6


def test_nothing_is_caught_up_before_the_first_job(tmp_path: Path) -> None:
    paths, began = make(tmp_path / "run", **SMALLER), threading.Event()

    def view(_history: History) -> Callable[[Event], object]:
        began.set()
        return lambda _event: None

    run = runs.open_run(paths, tmp_path)
    session = start_session(run, runner="local", slots=1, views={"it": view}, say=pytest.fail)
    assert not session.listeners[0]._has_begun  # type: ignore[attr-defined]
    session.next_job()
    assert began.wait(30)
    session.close("interrupted")


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """Set at the end, so that no thread outlives its test."""
    end = threading.Event()
    yield end
    end.set()


def test_a_view_that_hangs_does_not_hold_a_stop(
    tmp_path: Path, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "_LET_GO_S", 0.1)
    paths = make(tmp_path / "run", **SMALLER)
    run = runs.open_run(paths, tmp_path)
    views: dict[str, OpenView] = {"it": lambda _history: lambda _event: stuck.wait(60)}
    session = start_session(run, runner="local", slots=1, views=views, say=lambda line: None)
    session.listeners.append(lambda event: session.request_stop() if session.history.steps_spent > 10 else None)
    LocalRunner(run).run(session)
    session.close("interrupted")
    assert runs.replay(paths)[1].ended == "interrupted"
    assert not stuck.is_set()
    monkeypatch.undo()
    finish(paths)


@pytest.mark.parametrize("what", ["hangs", "no thread"])
def test_a_finished_search_ends_without_its_views(
    tmp_path: Path, stuck: threading.Event, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    paths, said = make(tmp_path / "run", **SMALLER), list[str]()
    monkeypatch.setattr(follower, "_CATCH_UP_S", 0.1)
    if what == "no thread":
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    drive(paths, {"it": lambda _history: lambda _event: stuck.wait(60)}, said.append)
    assert runs.replay(paths)[1].ended == "finished"
    why = "it takes too long" if what == "hangs" else "RuntimeError: can't start new thread"
    assert said == [f"warning: it: behind the journal ({why}); `tune-rh resume` brings it up to date"]
