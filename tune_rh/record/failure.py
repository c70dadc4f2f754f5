"""What a failed job says first, found in the traceback that it left; and the tries of jobs that a run has lost."""

from __future__ import annotations

import linecache
import re
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tune_rh.record.events import JobRetried, LossCause, MemberId

_HEADER = re.compile(r"Traceback \(most recent call last\):|ray::.*\(pid=")
_FRAME = re.compile(r'  File "(.+)", line (\d+)(?:, in (.+))?')
_ROOT = Path(__file__).parents[2]
_OURS = tuple(str(_ROOT / part) for part in ("tune_rh/", "trainables/worker/", "trainables/registry.py"))
_STDLIB = sysconfig.get_path("stdlib")
_TYPED = ("<stdin>", "<python-input", "<ipython-input")
_INSTALLED = re.compile(r"[\\/](site|dist)-packages[\\/]")


class _Frame(NamedTuple):
    file: str
    line: str
    function: str | None
    code: str


def headline(error: str) -> str:
    """The first line of the exception that a traceback ends with, and the file and line of the innermost frame that is
    no library's and none of ours; of another text the last line.
    """
    said, frames = _read(error)
    chosen = _own(frames)
    return f"{said} ({chosen.file}:{chosen.line})" if chosen else said


def own_frame(error: str) -> str:
    """The frame that `headline` names as a traceback has it, with its line of code; empty where there is none."""
    frame = _own(_read(error)[1])
    if frame is None:
        return ""
    code = frame.code or linecache.getline(frame.file, int(frame.line)).strip()  # a worker has not what was typed here
    where = f'  File "{frame.file}", line {frame.line}' + (f", in {frame.function}" if frame.function else "")
    return f"{where}\n    {code}" if code else where


def _read(error: str) -> tuple[str, list[_Frame]]:
    """The first line of the exception that a traceback ends with, and its frames; of another text the last line."""
    lines = [line.rstrip() for line in error.splitlines() if line.strip()]
    frames = list[_Frame]()
    start = max((i for i, line in enumerate(lines) if _HEADER.match(line)), default=None)
    for i, line in enumerate(lines[start + 1 :], start + 1) if start is not None else ():
        if frame := _FRAME.match(line):
            code = lines[i + 1] if i + 1 < len(lines) and lines[i + 1].startswith("    ") else ""
            frames.append(_Frame(frame[1], frame[2], frame[3], code.strip()))
        elif not line.startswith(" "):
            # A message may begin on the line after the name of its type.
            said = line if not line.endswith(":") or i + 1 == len(lines) else f"{line} {lines[i + 1].strip()}"
            return said, frames
    return lines[-1].strip() if lines else "no message", []


def _own(frames: Sequence[_Frame]) -> _Frame | None:
    theirs = [frame for frame in frames if not frame.file.startswith((*_OURS, _STDLIB)) and _is_written(frame.file)]
    own = [frame for frame in theirs if not _INSTALLED.search(frame.file)]
    # A family that is installed lies where libraries lie: then the first frame is where ours has called it.
    chosen = own[-1:] or theirs[:1] or frames[-1:]
    return chosen[0] if chosen else None


def _is_written(file: str) -> bool:
    """Whether it is a file, or was typed in."""
    return not file.startswith("<") or file.startswith(_TYPED)


_CAUSES: dict[LossCause, str] = {
    "exception": "raised an exception",
    "oom": "ran out of memory",
    "actor": "lost their worker",
    "node": "lost their machine",
    "preempted": "left a machine that was taken away",
    "storage": "could not read or write",
}


def describe_loss(event: JobRetried) -> str:
    """One line on a try that was lost, with where the member goes on."""
    goes_on = f"goes on from {event.from_step}"
    where = f" on {event.node}" if event.node else ""
    match event.cause:
        case "node" | "preempted":
            state = "gone" if event.cause == "node" else "leaving"
            return f"{event.node or 'a machine'} is {state}; {event.member} {goes_on} when a slot is free"
        case "actor":
            worker = f" {event.pid}" if event.pid else ""
            return f"{event.member}  its worker{worker}{where} is gone; {goes_on}"
        case _:
            return f"{event.member}  failed{where}, {goes_on}: {event.reason}"


class Losses:
    """The tries of jobs that were lost and begun again, and machines that are gone, folded from the events of a run."""

    def __init__(self) -> None:
        self.all: list[JobRetried] = []
        self.gone: list[str] = []
        self.raised: dict[MemberId, str] = {}
        """What each member's own code raised last before it was tried again, in one line."""
        self._of_job: dict[MemberId, Counter[LossCause]] = defaultdict(Counter)

    def begin(self, member: MemberId) -> None:
        """A job of the member starts: what earlier ones lost does not count against it."""
        self._of_job.pop(member, None)

    def add(self, event: JobRetried) -> None:
        """Take a loss in."""
        self.all.append(event)
        self._of_job[event.member][event.cause] += 1
        if event.cause == "exception":
            self.raised[event.member] = event.reason

    def summary(self) -> Iterator[str]:
        """Sentences on how many tries were lost to what, and on machines that are gone; nothing where none was."""
        if self.all:
            causes = Counter(_CAUSES[event.cause] for event in self.all)
            lost = ", ".join(f"{number} {cause}" for cause, number in causes.most_common())
            yield f"Tries of jobs that were lost and begun again: {lost}."
        if self.gone:
            yield f"Machines that went: {', '.join(dict.fromkeys(self.gone))}."

    def of_job(self, member: MemberId, cause: LossCause) -> int:
        """How often the member's present job was lost: through its own code, or (any other ``cause``) without."""
        causes = self._of_job.get(member, Counter())
        own = causes["exception"] + causes["oom"]
        return own if cause in ("exception", "oom") else causes.total() - own
