"""Workers start before jobs do, and who waits for them is told."""

from __future__ import annotations

import pytest

from tune_rh.run.ray import warm_up
from tune_rh.run.ray.warm_up import WarmUp


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, to be set."""
    now = [100.0]
    monkeypatch.setattr(warm_up.time, "monotonic", lambda: now[0])
    return now


def test_a_trial_a_slot_is_asked_for_and_jobs_start_once_all_are_up(clock: list[float]) -> None:
    workers = WarmUp(2)
    assert [workers.ask() for _ in range(4)] == [True, True, False, False]
    clock[0] += 1000.0  # none is up: there is nothing that jobs could start in
    assert not workers.is_over
    workers.note("a", "h0")
    workers.note("a", "h0")
    assert not workers.is_over
    workers.note("b", "h1")
    assert workers.is_over


def test_the_first_one_waits_a_minute_for_the_rest(clock: list[float]) -> None:
    workers = WarmUp(3)
    workers.note("a")
    clock[0] += 60.0
    assert not workers.is_over
    clock[0] += 0.1
    assert workers.is_over


def test_every_ten_seconds_it_is_said_how_many_are_up_and_where(clock: list[float]) -> None:
    said: list[str] = []
    workers = WarmUp(4, said.append)
    for seconds, node in enumerate(["", "", "", "", "", "", "", "", "", "", "", "h1", "h0", "h1"]):
        clock[0] = 100.0 + 2 * seconds
        if node:
            workers.note(f"{seconds}", node)
        workers.tell()
    assert said == [
        "0 of 4 workers are up after 10 s; each imports torch first, at a low priority",
        "0 of 4 workers are up after 20 s; each imports torch first, at a low priority",
    ]
    clock[0] = 131.0
    workers.tell()
    assert said[2] == "3 of 4 workers are up after 31 s (1 on h0, 2 on h1); each imports torch first, at a low priority"
