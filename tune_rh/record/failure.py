"""What a failed job says first, found in the traceback that it left."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path

_HEADER = re.compile(r"Traceback \(most recent call last\):|ray::.*\(pid=")
_FRAME = re.compile(r'  File "(.+)", line (\d+)')
_ROOT = Path(__file__).parents[2]
_OURS = tuple(str(_ROOT / part) for part in ("tune_rh/", "trainables/worker/", "trainables/registry.py"))
_STDLIB = sysconfig.get_path("stdlib")
_INSTALLED = re.compile(r"[\\/](site|dist)-packages[\\/]")


def headline(error: str) -> str:
    """The first line of the exception that a traceback ends with, and the file and line of the innermost frame that is
    no library's and none of ours; of another text the last line.
    """
    lines = [line.rstrip() for line in error.splitlines() if line.strip()]
    found, frames = "", list[tuple[str, str]]()
    start = max((i for i, line in enumerate(lines) if _HEADER.match(line)), default=None)
    if start is not None:
        for i, line in enumerate(lines[start + 1 :], start + 1):
            if frame := _FRAME.match(line):
                frames.append((frame[1], frame[2]))
            elif not line.startswith(" "):
                # A message may begin on the line after the name of its type.
                found = line if not line.endswith(":") or i + 1 == len(lines) else f"{line} {lines[i + 1].strip()}"
                break
    if not found:
        return lines[-1].strip() if lines else "no message"
    place = _place(frames)
    return f"{found} ({place})" if place else found


def _place(frames: Sequence[tuple[str, str]]) -> str:
    theirs = [frame for frame in frames if not frame[0].startswith((*_OURS, _STDLIB, "<"))]
    own = [frame for frame in theirs if not _INSTALLED.search(frame[0])]
    # A family that is installed lies where libraries lie: then the first frame is where ours has called it.
    chosen = own[-1:] or theirs[:1] or frames[-1:]
    return ":".join(chosen[0]) if chosen else ""
