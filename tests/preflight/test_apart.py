"""Code of the user's in a process of its own: how it may end, and what it may start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from trainables.api import Finding
from tune_rh.preflight.apart import apart

FOUND = [Finding("T02", "task.step()", "fails")]


def ends(code: int) -> list[Finding]:
    os._exit(code)


def raises() -> list[Finding]:
    raise RuntimeError("of ours")


def is_killed() -> list[Finding]:
    os.kill(os.getpid(), signal.SIGKILL)
    return FOUND


def test_what_it_finds_comes_back() -> None:
    assert apart(list) == []
    assert apart(lambda: FOUND) == FOUND
    many = FOUND * 100_000  # more than a pipe holds
    assert apart(lambda: many) == many


@pytest.mark.parametrize(
    ("work", "how"),
    [
        (lambda: ends(3), "exit code 3"),
        (lambda: ends(0), "exit code 0"),
        (lambda: sys.exit(), "exit code 1"),
        (raises, "exit code 1"),
        (is_killed, "signal SIGKILL"),
    ],
)
def test_a_process_that_ends_early_is_a_finding(work: object, how: str) -> None:
    expected = Finding("T00", "task", f"ends the process that tries it ({how})")
    assert apart(work) == [expected]  # type: ignore[arg-type]


def test_what_never_ends_is_ended() -> None:
    def waits() -> list[Finding]:
        while True:
            time.sleep(60.0)

    expected = Finding("T00", "task", "is still tried after 0.5 s; --no-trial leaves that out")
    assert apart(waits, limit_s=0.5) == [expected]


def test_a_question_to_the_user_is_not_waited_for() -> None:
    kept, (reading, writing) = os.dup(0), os.pipe()
    os.dup2(reading, 0)
    try:
        answered = apart(lambda: [Finding("T01", "task", repr(os.read(0, 1)))], limit_s=60.0)
    finally:
        os.dup2(kept, 0)
        for descriptor in (kept, reading, writing):
            os.close(descriptor)
    assert answered == [Finding("T01", "task", "b''")]


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    def starts() -> list[Finding]:
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600.0,), daemon=True)
        child.start()
        (tmp_path / "pid").write_text(str(child.pid))
        return []

    assert apart(starts) == []
    pid = int((tmp_path / "pid").read_text())
    for _ in range(1000):  # a process that is killed takes a moment
        if is_gone(pid):
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} is still there")


def is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")
