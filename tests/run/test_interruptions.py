"""What may look like a request to stop, and is none; and a stop file that was made by another hand."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tests.worlds import plans
from tests.worlds.family import ScriptedTask
from tests.worlds.records import SMALL, decided, finish, make, of
from tune_rh import api
from tune_rh.plan.file import resolve_plan
from tune_rh.record.events import JobEnded, JobStarted, SessionEnded
from tune_rh.record.journal import RunPaths
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.runner import start_session
from tune_rh.run.runs import open_run

pytestmark = pytest.mark.usefixtures("no_drawing")


def sleep(ready: Event) -> None:
    ready.set()
    time.sleep(60)


@pytest.mark.parametrize(
    ("number", "waits"),
    [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGHUP, True), (signal.SIGTERM, False)],
    ids=["SIGTERM", "SIGINT", "SIGHUP", "SIGTERM at once"],
)
def test_a_signal_to_a_child_that_a_task_has_forked_ends_the_child_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, waits: bool
) -> None:
    codes: list[int | None] = []
    read = ScriptedTask.evaluate

    def evaluate(task: ScriptedTask, split: str = "val") -> dict[str, float]:
        if not codes:
            fork = multiprocessing.get_context("fork")
            ready = fork.Event()
            child = fork.Process(target=sleep, args=(ready,))
            child.start()
            assert not waits or ready.wait(60)
            assert child.pid is not None
            os.kill(child.pid, number)
            child.join()
            codes.append(child.exitcode)
        return read(task, split)

    monkeypatch.setattr(ScriptedTask, "evaluate", evaluate)
    # What a fresh process has; Ray leaves a handler of its own in a process that it was in.
    own = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    of_others = signal.signal(number, own)
    try:
        plan = resolve_plan(plans.fields(name="run", **SMALL))
        run = api.search(plan, runs_dir=tmp_path, data_dir=tmp_path, runner="local")
        assert signal.getsignal(number) == own
    finally:
        signal.signal(number, of_others)
    assert codes == [1 if number == signal.SIGINT else -number]
    assert run.run.ended == "finished"


def test_a_stop_file_made_by_another_hand_ends_the_session_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = decided(make_and_finish(tmp_path / "whole"))
    paths = make(tmp_path / "run", **SMALL)
    read = ScriptedTask.evaluate

    def evaluate(task: ScriptedTask, split: str = "val") -> dict[str, float]:
        if task._step == 20:
            paths.stop_request.touch()
        return read(task, split)

    with monkeypatch.context() as patch:
        patch.setattr(ScriptedTask, "evaluate", evaluate)
        run = open_run(paths, paths.root)
        session = start_session(run, runner="local", slots=1)
        LocalRunner(run).run(session)
        assert session.stopping
        session.close("interrupted")
    assert of(paths, SessionEnded)[-1].reason == "interrupted"
    assert [e.outcome for e in of(paths, JobEnded)].count("interrupted") == 1
    assert max(Counter((e.member, e.until_step, e.purpose) for e in of(paths, JobStarted)).values()) == 1
    assert not paths.stop_request.exists()
    finish(paths)
    assert decided(paths) == whole


def make_and_finish(folder: Path) -> RunPaths:
    paths = make(folder, **SMALL)
    finish(paths)
    return paths
