"""What one step of a session records reaches the disk together, before anything acts on it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.plans import plan
from tests.worlds.records import SMALL, decided, events, finish, make, open_search
from tests.worlds.scripted import ScriptedSource
from tune_rh.decide.scheduler import RunMember
from tune_rh.errors import StorageError
from tune_rh.record import journal as journal_module
from tune_rh.record.events import CandidateAdded, Evaluated, Event, JobEnded, JobStarted, SessionEnded, SessionStarted
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.run import runs
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.session import Session


class Steps:
    """Counts calls to fsync of a journal, and what a session has recorded by each."""

    def __init__(self, paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[int] = []
        self._journal = paths.journal
        monkeypatch.setattr(journal_module.os, "fsync", self._note)

    def _note(self, descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == self._journal.stat().st_ino:
            self.lines.append(len(self._journal.read_bytes().splitlines()))


def started(paths: RunPaths) -> tuple[runs.OpenRun, Session, RunMember]:
    """A run whose first job has started."""
    run, session = open_search(paths)
    job = session.next_job()
    assert isinstance(job, RunMember)
    return run, session, job


def report_of(job: RunMember, step: int) -> Evaluated:
    return Evaluated(job.member, step, {"val_loss": 1.0, "train_loss": 1.0}, 0.1, 0.1)


def test_a_search_waits_for_the_disk_once_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make(tmp_path / "run", **SMALL)
    run, session = open_search(paths)
    steps = Steps(paths, monkeypatch)
    calls = 0

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            return method(*args, **kwargs)

        return call

    monkeypatch.setattr(session, "on_report", counted(session.on_report))
    monkeypatch.setattr(session, "next_job", counted(session.next_job))
    LocalRunner(run).run(session)
    monkeypatch.undo()
    assert len(steps.lines) <= calls < steps.lines[-1] - 2
    session.close("finished")
    together = [tuple(type(event).__name__ for event in part) for part in batches(events(paths), steps.lines)]
    assert ("Evaluated", "JobEnded", "JobStarted") in together
    assert ("CandidateAdded", "JobStarted") in together
    assert any("Promoted" in names and names[-1] == "JobStarted" for names in together)


def batches(written: list[Event], ends: list[int]) -> list[list[Event]]:
    return [written[start:end] for start, end in zip([2, *ends], ends, strict=False)]


def test_nothing_is_told_before_the_disk_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make(tmp_path / "run", **SMALL)
    _, session, job = started(paths)
    steps = Steps(paths, monkeypatch)
    durable = list[int]()
    session.listeners.append(lambda _event: durable.append(steps.lines[-1]))
    before = len(events(paths))
    session.on_report(report_of(job, 10))
    assert session.on_report(report_of(job, 20)) in (True, False)
    assert [type(event) for event in events(paths)[before:]][:3] == [Evaluated, Evaluated, JobEnded]
    assert durable == [before + 1] + [len(events(paths))] * (len(events(paths)) - before - 1)


def test_a_step_that_cannot_be_written_is_told_to_nobody_and_stands_before_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make(tmp_path / "run", **SMALL)
    _, session, job = started(paths)
    session.on_report(report_of(job, 10))
    before, told = events(paths), list[Event]()
    session.listeners.append(told.append)

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "fsync", fail)
        with pytest.raises(StorageError, match=r"journal\.jsonl: input/output error"):
            session.on_report(report_of(job, 20))
    assert events(paths) == before
    assert told == []
    session.close("failed")
    after = events(paths)
    assert after[: len(before)] == before
    assert told == after[len(before) :]
    assert isinstance(told[0], Evaluated)
    assert isinstance(told[-1], SessionEnded)
    finish(paths)
    whole = make(tmp_path / "whole", **SMALL)
    _, undisturbed, job = started(whole)
    for step in (10, 20):
        undisturbed.on_report(report_of(job, step))
    undisturbed.close("failed")
    finish(whole)
    assert decided(paths) == decided(whole)


class Fails(ScriptedSource):
    """Has a first candidate and no other."""

    def candidate(self, history: History) -> CandidateAdded:
        if history.candidates:
            raise ValueError("no second candidate")
        return super().candidate(history)


def test_what_was_recorded_before_an_error_is_committed() -> None:
    held, written = list[Event](), list[Event]()

    def commit() -> None:
        written.extend(held)
        held.clear()

    of = plan(**SMALL)
    session = Session(of, History(of), held.append, Fails(of), lambda: 0.0, runner="test", slots=9, commit=commit)
    assert isinstance(session.next_job(), RunMember)
    with pytest.raises(ValueError, match="no second candidate"):
        session.next_job()
    assert held == []
    session.close("failed")
    jobs = [event.member for event in written if isinstance(event, JobStarted)]
    assert [type(event) for event in written[:3]] == [SessionStarted, CandidateAdded, JobStarted]
    assert [event.member for event in written if isinstance(event, JobEnded)] == jobs
    assert isinstance(written[-1], SessionEnded)
