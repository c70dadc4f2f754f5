"""When the snapshot of a run is renewed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worlds.records import SMALL, decided, events, finish, make
from tune_rh.record.events import SessionEnded
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.record.snapshot import file as snapshot
from tune_rh.run import runs
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.runner import start_session, views
from tune_rh.watch import snapshots
from tune_rh.watch.snapshots import SnapshotKeeper


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals count as long with 10 events, and the snapshot is renewed when a fifth is new."""
    for name, value in {"_FEWEST": 10, "_SHARE": 5, "_AT_END": 1}.items():
        monkeypatch.setattr(snapshots, name, value)


@pytest.mark.usefixtures("short")
def test_it_is_renewed_as_the_journal_grows_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make(tmp_path / "run", **SMALL)
    finish(paths)
    told, saved = events(paths), list[int]()
    save = snapshot.save

    def noted(history: History, prefix: snapshot.Prefix, of: RunPaths) -> bool:
        saved.append(history.num_events)
        return save(history, prefix, of)

    monkeypatch.setattr(snapshot, "save", noted)
    plan, _ = runs.replay(paths)
    history = History(plan)
    keeper = SnapshotKeeper(paths, history)
    for event in told:
        history.apply(event)
        keeper(event)
    assert isinstance(told[-1], SessionEnded)
    expected = [10]
    for num in range(11, len(told)):
        if num - expected[-1] >= max(10, num // 5):
            expected.append(num)
    assert saved == [*expected, len(told)]
    assert snapshot.num_events(paths) == len(told)
    saved.clear()
    SnapshotKeeper(paths, history)
    assert saved == []
    paths.snapshot.unlink()
    assert snapshot.num_events(paths) == 0
    SnapshotKeeper(paths, history)
    assert saved == [len(told)]


def test_a_short_journal_has_none(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **SMALL)
    finish(paths)
    SnapshotKeeper(paths, runs.replay(paths)[1])(events(paths)[-1])
    assert not paths.snapshot.exists()


@pytest.mark.usefixtures("short")
def test_sessions_that_go_on_from_one_leave_the_run_of_a_single_session(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", **SMALL)
    finish(whole)
    assert not whole.snapshot.exists()
    paths = make(tmp_path / "run", **SMALL)
    for most in (20, 35, 1000):
        run = runs.open_run(paths, tmp_path)
        session = start_session(run, runner="local", slots=1, views=views(run))
        session.listeners.append(
            lambda _event, of=session, most=most: of.request_stop() if of.history.num_events > most else None
        )
        LocalRunner(run).run(session)
        session.close("interrupted" if session.stopping else "finished")
        assert snapshot.num_events(paths) == len(events(paths))
    assert decided(paths) == decided(whole)
