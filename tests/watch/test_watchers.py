"""Watchers of a user's own: each event once, in order, whatever fails, and across a resume."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.watch.test_follower import Audience
from tests.worlds.records import SMALL, decided, events, make
from tune_rh.errors import PlanError
from tune_rh.plan.file import resolve_plan
from tune_rh.record.events import Evaluated, Event, JobStarted, SessionEnded
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths, mark_after, read
from tune_rh.run import runs
from tune_rh.run.execute import Place, execute
from tune_rh.watch import follower
from tune_rh.watch.watchers import WatcherLike, find

SMALLER = {**SMALL, "num_candidates": 3}


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts, nor for a disk."""
    monkeypatch.setattr(follower, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


def follow(paths: RunPaths, *watchers: WatcherLike, on_event: Callable[[Event], object] | None = None) -> Audience:
    """The run to its end, with these watchers."""
    audience = Audience() if on_event is None else Audience(on_event)
    place = Place(paths.root.parent, "local", watchers=watchers)
    execute(paths, place, audience, lambda *_: None)  # type: ignore[arg-type]
    return audience


def pull_out(paths: RunPaths, *watchers: WatcherLike) -> None:
    """The run until its fifth report, where its driver dies."""
    num = 0

    def stop(event: Event) -> None:
        nonlocal num
        num += isinstance(event, Evaluated)
        if num == 5:
            raise RuntimeError("pulled out")

    with pytest.raises(RuntimeError, match="pulled out"):
        follow(paths, *watchers, on_event=stop)


class Kept:
    """Keeps the events of all that are made of it."""

    heard: list[Event] = []

    def __call__(self, event: Event, history: History) -> None:
        assert not isinstance(event, JobStarted) or history.member(event.member) is not None
        self.heard.append(event)


def kept(event: Event, history: History) -> None:
    """A function as a watcher."""
    Kept.heard.append(event)


@pytest.fixture(autouse=True)
def nothing_heard() -> None:
    Kept.heard.clear()


@pytest.mark.parametrize(
    "watcher", [Kept, Kept(), kept, "tests.watch.test_watchers:Kept", "tests.watch.test_watchers:kept"]
)
def test_a_watcher_is_told_every_event_of_the_journal_once(tmp_path: Path, watcher: WatcherLike) -> None:
    paths = make(tmp_path / "run", **SMALLER)
    audience = follow(paths, watcher)
    assert repr(Kept.heard) == repr(events(paths))  # NaN equals NaN
    assert audience.warnings == []


def test_a_plan_names_its_watchers_and_decides_the_same_without_them(tmp_path: Path) -> None:
    quiet, paths = (
        make(tmp_path / "quiet", **SMALLER),
        make(tmp_path / "run", **SMALLER, watch=["tests.watch.test_watchers:Kept"]),
    )
    follow(quiet)
    assert Kept.heard == []
    follow(paths)
    assert repr(Kept.heard) == repr(events(paths))
    assert decided(paths) == decided(quiet)
    plans = [runs.replay(p)[0] for p in (quiet, paths)]
    assert plans[0].fingerprint() == plans[1].fingerprint()


@pytest.mark.parametrize("at", [1, 9, 40])
def test_a_watcher_that_raises_is_named_once_and_told_the_rest_later(tmp_path: Path, at: int) -> None:
    heard: list[Event] = []
    failures = 2

    def fragile(event: Event, history: History) -> None:
        nonlocal failures
        if len(heard) + 1 == at and failures:
            failures -= 1
            raise ValueError("no such channel\nsecond line")
        heard.append(event)

    paths = make(tmp_path / "run", **SMALLER)
    audience = follow(paths, fragile)
    name = fragile.__qualname__
    (warning,) = audience.warnings
    assert warning.startswith(f"warning: {__name__}.{name}: cannot be written (ValueError: no such channel)")
    assert repr(heard) == repr(events(paths))


def test_one_that_always_raises_holds_up_neither_the_search_nor_another(tmp_path: Path) -> None:
    def broken(event: Event, history: History) -> None:
        raise KeyError("x")

    paths = make(tmp_path / "run", **SMALLER)
    audience = follow(paths, broken, Kept)
    assert [line for line in audience.warnings if "broken" not in line] == []
    assert "cannot be written (KeyError: 'x')" in audience.warnings[0]
    assert "behind the journal" in audience.warnings[-1]
    assert repr(Kept.heard) == repr(events(paths))
    assert runs.replay(paths)[1].ended == "finished"


def test_a_resume_tells_only_what_was_not_told(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **SMALLER)
    pull_out(paths, Kept)
    num_before = len(Kept.heard)
    assert 0 < num_before <= len(events(paths))
    follow(paths, Kept)
    assert repr(Kept.heard) == repr(events(paths))
    follow(paths, Kept)  # nothing is left to run, and nothing to tell
    assert repr(Kept.heard) == repr(events(paths))
    assert isinstance(Kept.heard[-1], SessionEnded)


def test_a_watcher_that_comes_later_is_told_all_from_the_start(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **SMALLER)
    follow(paths)
    follow(paths, Kept, "csv")
    assert repr(Kept.heard) == repr(events(paths))


def test_a_journal_is_read_on_from_any_place(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **SMALLER)
    follow(paths)
    every = events(paths)
    for num in (0, 1, 7, len(every), len(every) + 3):
        assert repr(list(read(paths.journal, mark=mark_after(paths.journal, num)))) == repr(every[num:])


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, without the column that no two runs share."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: value for name, value in row.items() if name != "train_s"} for row in csv.DictReader(file)]


def test_csv_has_a_row_a_report_however_often_it_was_interrupted(tmp_path: Path) -> None:
    quiet, paths = make(tmp_path / "quiet", **SMALLER), make(tmp_path / "run", **SMALLER, watch=["csv"])
    follow(quiet, "csv")
    pull_out(paths)
    told = paths.watch / "csv.told"
    told.write_text(f"{int(told.read_text()) - 3:019d}\n")  # as if it had died before it could note them
    follow(paths)
    for name in ("metrics.csv", "test.csv", "candidates.csv"):
        assert rows(paths.root / "csv" / name) == rows(quiet.root / "csv" / name)
    reports = [e for e in events(paths) if isinstance(e, Evaluated)]
    written = rows(paths.root / "csv" / "metrics.csv")
    assert [(r["candidate"], int(r["seed"]), int(r["step"])) for r in written] == [(*e.member, e.step) for e in reports]
    shown = [float(r["val_loss"]) for r in written if r["val_loss"]]  # a member that diverged has none there
    assert shown == [e.metrics["val_loss"] for e in reports if "val_loss" in e.metrics]


@pytest.mark.parametrize(
    ("watch", "said"),
    [
        ("mlfow", "watch = 'mlfow'"),
        ("tests.watch.test_watchers:NoSuch", "cannot be imported"),
        ("tests.watch.test_watchers:SMALLER", "is a dict, not a class or a function"),
        (3, "cannot be called"),
    ],
)
def test_what_is_no_watcher_is_refused_by_name(tmp_path: Path, watch: Any, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        Place(tmp_path, "local", watchers=(watch,))


def test_a_plan_with_an_unknown_watcher_is_refused() -> None:
    from tests.worlds.plans import fields

    with pytest.raises(PlanError, match=r"watch.*'tensorboad': known: csv, mlflow, wandb; one of your own"):
        resolve_plan(fields(watch=["csv", "tensorboad"]))


def test_a_missing_library_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_rh.watch.watchers.find_spec", lambda _name: None)
    with pytest.raises(PlanError, match=r"needs mlflow, which is not installed: pip install 'tune-rh\[mlflow\]'"):
        find("mlflow")
