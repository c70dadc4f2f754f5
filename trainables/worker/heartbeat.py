"""Heartbeats: one line of JSON every few steps of a member, and the rules of live health on the way.

The lines may be lost: nothing is decided by them. What the rules find (`trainables.worker.health`) is part of the
member's state and of its next report.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from trainables.worker.health import Monitor, TrainingHealth
from trainables.worker.job import MemberJob
from trainables.worker.report import Message, Number

_MIB = 2**20
_FILE = "heartbeat.jsonl"
_TAIL = 2**16  # bytes from the end that hold a whole line


@dataclass(frozen=True)
class Memory:
    """What a process has: in use, and taken from the device. None where nothing tells."""

    allocated_mib: float | None
    reserved_mib: float | None
    oom_retries: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat(Message):
    """One line; sizes are in MiB, and in GiB (MiB / 1024) to two digits.

    Attributes:
        time: Unix time.
        host: where the member trains, by name.
        tokens, tokens_per_s: None for a family that counts none.
        loss: of the step; ``smoothed_loss`` over the steps up to it.
        train_s, eval_s: seconds since the last beat.
        oom_retries: of the allocator, since the process began.
        mem_limit_mib: the member's share of a GPU; None where it may have all that there is.
        fallbacks: of the step, where the family reports them.
        health: the family's health metrics, as they were last reported.
    """

    time: Number
    run: str
    member: str
    config_digest: str
    step: int
    tokens: Number | None
    loss: Number
    smoothed_loss: Number
    lr: Number | None
    grad_norm: Number | None
    tokens_per_s: Number | None
    steps_per_s: Number
    train_s: Number
    eval_s: Number
    mem_alloc_mib: Number | None
    mem_alloc_gib: Number | None
    mem_reserved_mib: Number | None
    mem_reserved_gib: Number | None
    oom_retries: int
    mem_limit_mib: Number | None = None
    mem_limit_gib: Number | None = None
    fallbacks: Number | None = None
    health: Mapping[str, Number] = field(default_factory=dict)
    host: str = ""

    def line(self) -> bytes:
        """As JSON, with a newline."""
        return _LINE.dump_json(self) + b"\n"


_LINE = TypeAdapter(Heartbeat)


def last_beat(folder: Path) -> Heartbeat | None:
    """The newest whole line that the member of ``folder`` has written; None if there is none that can be read."""
    try:
        with (folder / _FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().split(b"\n")
        return _LINE.validate_json(lines[-2])
    except (OSError, ValueError, IndexError):
        return None


class Heart:
    """Watches one member in one process: hands every step to the rules, and beats every few of them.

    Args:
        job: whose member it is.
        health: of the member; changed in place.
        names: of the family's health metrics.
        limit_mib: of GPU memory that the process may take, where it is less than all.
    """

    def __init__(
        self, job: MemberJob, health: TrainingHealth, names: Collection[str], limit_mib: float | None = None
    ) -> None:
        self._job, self._health, self._names, self._limit_mib = job, health, names, limit_mib
        self._monitor = Monitor(health, job.rules_off, job.device)
        self._path = Path(job.folder) / _FILE
        self._refused = False
        self._last: dict[str, float] = {}
        self._began: float | None = None
        self._train_s = self._eval_s = 0.0
        self._steps = 0
        self._tokens: float | None = None

    def begin(self) -> None:
        """An interval of training begins."""
        self._began = time.perf_counter()

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take what the step reported."""
        self._monitor.on_step(step, metrics["train_loss"], metrics.get("grad_norm"))
        self._steps += 1
        if self._job.beat_every and step % self._job.beat_every == 0:
            self._beat(step, metrics)

    def on_evaluation(self, metrics: Mapping[str, float], eval_s: float) -> None:
        """An interval ends with these metrics."""
        self._pause()
        self._eval_s += eval_s
        self._last = {name: metrics[name] for name in self._names if name in metrics}

    def _pause(self) -> None:
        now = time.perf_counter()
        if self._began is not None:
            self._train_s += now - self._began
        self._began = None

    def _beat(self, step: int, metrics: Mapping[str, float]) -> None:
        self._pause()
        self._began = time.perf_counter()
        job, has = self._job, memory(self._job.device)
        tokens = metrics.get("tokens")
        steps_per_s = self._steps / max(self._train_s, 1e-9)
        tokens_per_s = None
        if tokens is not None:
            each = tokens / step if self._tokens is None else (tokens - self._tokens) / self._steps
            tokens_per_s = each * steps_per_s
        beat = Heartbeat(
            time=time.time(),
            run=self._path.parents[2].name,
            member=str(job.member),
            config_digest=job.config_digest,
            step=step,
            tokens=tokens,
            loss=metrics["train_loss"],
            smoothed_loss=self._health.smoothed_loss,
            lr=metrics.get("lr"),
            grad_norm=metrics.get("grad_norm"),
            tokens_per_s=tokens_per_s,
            steps_per_s=steps_per_s,
            train_s=self._train_s,
            eval_s=self._eval_s,
            mem_alloc_mib=has.allocated_mib,
            mem_alloc_gib=_gib(has.allocated_mib),
            mem_reserved_mib=has.reserved_mib,
            mem_reserved_gib=_gib(has.reserved_mib),
            oom_retries=has.oom_retries,
            mem_limit_mib=self._limit_mib,
            mem_limit_gib=_gib(self._limit_mib),
            fallbacks=metrics.get("fallbacks"),
            health={**self._last, **{name: metrics[name] for name in self._names if name in metrics}},
            host=socket.gethostname(),
        )
        rate = steps_per_s if tokens_per_s is None else tokens_per_s
        self._monitor.on_beat(step, rate, has.allocated_mib, has.oom_retries, beat.fallbacks)
        self._write(beat)
        self._train_s = self._eval_s = 0.0
        self._steps, self._tokens = 0, tokens

    def _write(self, beat: Heartbeat) -> None:
        """Append a line; a disk that refuses one gets no more of them, and training goes on."""
        if self._refused:
            return
        try:
            with self._path.open("ab", buffering=0) as file:
                file.write(beat.line())
        except OSError:
            self._refused = True


def _gib(mib: float | None) -> float | None:
    return None if mib is None else round(mib / 1024, 2)


def memory(device: str) -> Memory:
    """What this process has of the device's memory now."""
    if device == "cpu":
        return Memory(_in_use(), _resident())
    import torch

    facts = torch.cuda.memory_stats()
    retries = facts.get("num_alloc_retries", 0) + facts.get("num_ooms", 0)
    return Memory(torch.cuda.memory_allocated() / _MIB, torch.cuda.memory_reserved() / _MIB, retries)


class _MallInfo(ctypes.Structure):
    """``mallinfo2`` of glibc; ``hblkhd`` is what it has mapped, ``uordblks`` what it has handed out of its arenas."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks")]
    _fields_ += [(name, ctypes.c_size_t) for name in ("fsmblks", "uordblks", "fordblks", "keepcost")]


_mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
if _mallinfo is not None:
    _mallinfo.restype = _MallInfo


def _in_use() -> float | None:
    """What the C library has handed out and not got back; resident memory would keep its peak for good."""
    if _mallinfo is None:
        return None
    facts = _mallinfo()
    return float(facts.uordblks + facts.hblkhd) / _MIB


def _resident() -> float | None:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / _MIB
    except OSError:
        return None
