"""What a session says of its slots: who runs where, what waits for whom, and all of it on one screen."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from tests.worlds.plans import plan
from trainables.worker.heartbeat import Heartbeat
from tune_rh.cli import slots
from tune_rh.cli.commands import status
from tune_rh.cli.tables import candidates_table
from tune_rh.cli.terminal import Terminal
from tune_rh.record.events import (
    CandidateAdded,
    Evaluated,
    Event,
    JobEnded,
    JobRetried,
    JobStarted,
    MemberId,
    NodeLost,
    SessionStarted,
)
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.results.reading import Reading

FIRST, SECOND, LAST = (MemberId(f"c000{number}", 7) for number in range(3))


def begun(num_slots: int, num: int = 2) -> History:
    """A control and ``num`` candidates, each with one member, all of them running."""
    stages = [{"until_step": 20, "num_seeds": 1, "top": 1}, {"until_step": 40, "num_seeds": 1}]
    history = History(plan(num_candidates=num, seeds=[7], stages=stages, eval_every=10))
    history.apply(SessionStarted(1, 0.0, "ray", num_slots))
    for number in range(num + 1):
        name, origin = f"c{number:04d}", "control" if number == 0 else "sampled"
        history.apply(CandidateAdded(name, {"rate": number}, f"{number:064x}", origin))  # type: ignore[arg-type]
        history.apply(JobStarted(MemberId(name, 7), 0, 20, 0.0))
    return history


def park(history: History, member: MemberId) -> list[Event]:
    """The member comes to its gate; the events of that."""
    reports = [Evaluated(member, step, {"val_loss": 1.0}, 1.0, 0.1, False) for step in (10, 20)]
    events: list[Event] = [*reports, JobEnded(member, "parked", "", 1.0)]
    for event in events:
        history.apply(event)
    return events


def beat(member: MemberId, host: str) -> Heartbeat:
    given = dict.fromkeys(Heartbeat.__dataclass_fields__.keys() - {"event"}, None)
    told = {"time": time.time(), "step": 10, "smoothed_loss": 1.5, "steps_per_s": 35.06, "host": host, "health": {}}
    return Heartbeat(**{**given, **told, "run": "scripted", "member": str(member)})  # type: ignore[arg-type]


def test_slots_that_wait_at_a_gate_are_told_of_with_whom_they_wait_for() -> None:
    history = begun(3)
    assert slots.waiting(history) == ""
    park(history, FIRST)
    park(history, SECOND)
    assert slots.waiting(history) == "2 of 3 slots wait at gate 1 for c0002-s7"
    assert slots.waiting(history, {LAST: beat(LAST, "h1")}) == "2 of 3 slots wait at gate 1 for c0002-s7 on h1"
    park(history, LAST)
    assert slots.waiting(history) == ""  # the gate decides


def test_a_slot_that_has_work_does_not_wait() -> None:
    history = begun(9, num=1)
    assert slots.waiting(history) == "7 of 9 slots wait at gate 1 for c0000-s7 and c0001-s7"
    more = History(history.plan)
    more.apply(SessionStarted(1, 0.0, "ray", 9))
    assert slots.waiting(more) == ""


def test_a_log_has_each_such_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    history, log = begun(3), io.StringIO()
    with Terminal(Console(file=log, width=140)).follow(history) as watcher:
        for member in (FIRST, SECOND):
            for event in park(history, member):
                watcher(event)
    lines = [line for line in log.getvalue().splitlines() if "wait at" in line]
    assert lines == [
        "1 of 3 slots wait at gate 1 for c0001-s7 and c0002-s7",
        "2 of 3 slots wait at gate 1 for c0002-s7",
    ]


@pytest.mark.parametrize("num", [2, 40])
def test_a_screen_shows_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num: int) -> None:
    history = begun(num + 2, num)
    for number in range(30):
        history.apply(JobRetried(SECOND, 10, "h2", number, "node", "its node has gone, " + 90 * "x", 1.0))
    history.apply(NodeLost("h2", 1.0))
    members = [MemberId(f"c{number:04d}", 7) for number in range(num + 1)]
    beats = {str(member): beat(member, f"h{number % 3}") for number, member in enumerate(members)}
    monkeypatch.setattr(status, "last_beat", lambda folder: beats[folder.name])
    out = io.StringIO()
    view = status.screen(Reading(RunPaths(tmp_path / "run"), history, True, {}))
    Console(file=out, width=80, height=24, force_terminal=False).print(view)
    lines = out.getvalue().rstrip("\n").splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert f"{num + 1} of {num + 2} slots busy: " in lines[1]
    assert "c0001-s7 on h1  step 10, 35.1 steps/s, loss 1.5000; heard of 0 s ago" in lines
    assert "30 tries lost, the last ones:" in lines
    assert "Machines that went: h2" in lines
    assert any(line.startswith("1 of ") and "slots wait at gate 1 for c0000-s7" in line for line in lines)


def test_a_member_that_has_not_reported_says_so() -> None:
    history = begun(3, num=1)
    history.apply(Evaluated(FIRST, 10, {"val_loss": 1.25}, 1.0, 0.1, True))
    *_, cells = candidates_table(history).columns
    assert list(cells.cells) == ["1.250@10 …", "no report …"]
