"""What the slots of a session do: who runs where, what was lost, and what slots without work wait for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping

from trainables.errors import UnknownFamily
from trainables.worker.heartbeat import Heartbeat
from tune_rh.decide.scheduler import Finish, Wait, scheduler_of
from tune_rh.errors import PlanError
from tune_rh.record.events import MemberId
from tune_rh.record.failure import describe_loss
from tune_rh.record.history import History

_MOST_NAMES, _MOST_ROWS, _MOST_LOSSES = 2, 8, 3


def is_finished(history: History) -> bool:
    """Whether nothing is left to run, also where the driver was killed before it said so."""
    return history.ended == "finished" or _next_is(Finish, history)


def waiting(history: History, beats: Mapping[MemberId, Heartbeat] | None = None) -> str:
    """Which slots have nothing to do until members that run are at their gate; empty where none waits for that."""
    idle = history.slots - len(history.running)
    if idle <= 0 or not history.running or not _next_is(Wait, history):
        return ""
    stage = min(member.stage for member in history.running.values())
    last = [member for member, state in history.running.items() if state.stage == stage]
    names = [f"{member}{_on(member, beats or {})}" for member in last[:_MOST_NAMES]]
    names += [f"{len(last) - _MOST_NAMES} more"] if len(last) > _MOST_NAMES else []
    at = f"at gate {stage + 1}" if stage < history.plan.last_stage else "at the end"
    return f"{idle} of {history.slots} slots wait {at} for {' and '.join(names)}"


def _next_is(kind: type[Wait | Finish], history: History) -> bool:
    try:
        return isinstance(scheduler_of(history.plan).next(history), kind)
    except (UnknownFamily, PlanError):
        return False  # a scheduler from outside, or a family that a bisection needs for its next config, is not there


def _on(member: MemberId, beats: Mapping[MemberId, Heartbeat]) -> str:
    host = beats[member].host if member in beats else ""
    return f" on {host}" if host else ""


def lines(history: History, beats: Mapping[MemberId, Heartbeat]) -> Iterator[str]:
    """Slots and nodes, who runs where, and what waits, in a few lines of a terminal."""
    hosts = Counter(beats[member].host or "?" for member in history.running if member in beats)
    where = ", ".join(f"{number} on {host}" for host, number in sorted(hosts.items()))
    yield f"{len(history.running)} of {history.slots} slots busy{f': {where}' if where else ''}"
    for member in list(history.running)[:_MOST_ROWS]:
        yield _row(member, beats.get(member))
    if len(history.running) > _MOST_ROWS:
        yield f"... and {len(history.running) - _MOST_ROWS} more"
    if said := waiting(history, beats):
        yield said


def losses(history: History) -> Iterator[str]:
    """How many tries were lost and the last of them, and machines that are gone."""
    lost, gone = history.losses.all, history.losses.gone
    if lost:
        yield f"{len(lost)} tries lost, the last ones:"
        yield from map(describe_loss, lost[-_MOST_LOSSES:])
    if gone:
        yield f"Machines that went: {', '.join(dict.fromkeys(gone))}"


def _row(member: MemberId, beat: Heartbeat | None) -> str:
    """``c0004-s42 on h1  step 120, 35.1 steps/s, loss 1.2345; heard of 2 s ago``."""
    if beat is None:
        return f"{member}  starts"
    tokens = beat.tokens_per_s
    rate = f"{beat.steps_per_s:.1f} steps/s" if tokens is None else f"{tokens:,.0f} tokens/s"
    ago = max(0.0, time.time() - beat.time)
    at = f"{member}{f' on {beat.host}' if beat.host else ''}"
    return f"{at}  step {beat.step}, {rate}, loss {beat.smoothed_loss:.4f}; heard of {ago:.0f} s ago"
