"""The file of a snapshot: what it is of, a seal, and the packed history. It is never a source of truth.

It counts only where all of this holds: it was written by this version of the code and by this user, its plan is the
run's, and the journal begins with the very bytes that it was folded from. In any doubt the journal is folded.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from trainables.files import replacing
from trainables.trust import signature
from tune_rh.plan.schema import Plan
from tune_rh.record.history import History
from tune_rh.record.journal import Chain, Mark, RunPaths
from tune_rh.record.snapshot.codec import pack, unpack

_ROOT = Path(__file__).parents[3]
_SOURCES = ("tune_rh/record", "tune_rh/plan", "analysis/stats", "analysis/view.py", "trainables/worker/report.py")
_PIECE, _HEADER = 2**20, 2**16


class Prefix:
    """The first lines of a journal: how many there are, where they end, and a digest of all their bytes."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._digest = hashlib.sha256()
        self._last = b""
        self.num_lines = self.position = 0

    def advance(self, num_lines: int) -> None:
        """Go on to the end of line ``num_lines``; raises ValueError if there are fewer."""
        with self._journal.open("rb") as file:
            file.seek(self.position)
            while self.num_lines < num_lines:
                line = file.readline()
                if not line.endswith(b"\n"):
                    raise ValueError(f"{self._journal}: has fewer than {num_lines} lines")
                self._digest.update(line)
                self.position += len(line)
                self.num_lines += 1
                self._last = line

    def facts(self) -> dict[str, Any]:
        """What says that a journal begins with these lines, and how its chain goes on."""
        chain = Chain.after(self._last)
        return {
            "num_events": chain.seq,
            "checksum": chain.checksum,
            "position": self.position,
            "journal": self._digest.hexdigest(),
        }


def save(history: History, prefix: Prefix, paths: RunPaths) -> bool:
    """Write a snapshot of ``history``, which is folded from ``prefix``; False where this user can keep no key.

    Raises:
        OSError: it cannot be written; the one before stands.
        ValueError: the history is of more or fewer events than the prefix.
    """
    facts = prefix.facts()
    if facts["num_events"] != history.num_events:
        raise ValueError(f"a history of {history.num_events} events, {facts['num_events']} lines")
    lines, columns = pack(history)
    text = "\n".join(lines).encode()
    header = json.dumps({**_origin(paths), **facts, "text": len(text)}).encode()
    seal = _seal(header, text, *columns)
    if seal is None:
        return False
    with replacing(paths.snapshot, durable=False) as file:
        file.write(b"%s\n%s\n%s" % (header, seal, text))
        file.writelines(columns)
    return True


def load(paths: RunPaths, plan: Plan) -> tuple[History, Mark] | None:
    """The history of a run's snapshot, and where its journal goes on; None where there is none that counts.

    ``plan`` is the run's as its journal began.
    """
    if not paths.snapshot.is_file():
        return None
    try:
        with paths.snapshot.open("rb") as file:
            header, seal = file.readline(_HEADER), file.readline(_HEADER).rstrip(b"\n")
            facts = json.loads(header)
            if any(facts[name] != value for name, value in _origin(paths).items()):
                return None
            content = memoryview(file.read())
        if _seal(header.rstrip(b"\n"), content) != seal:
            return None
        if _digest_of(paths.journal, facts["position"]) != facts["journal"]:
            return None
        with _no_collection():
            split = facts["text"]
            history = unpack(str(content[:split], "utf-8"), content[split:], plan)
        return history, Mark(facts["position"], Chain(facts["num_events"], facts["checksum"].encode()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def num_events(paths: RunPaths) -> int:
    """Of how many events the run's snapshot is, going by its first line; 0 where there is none of this code."""
    try:
        with paths.snapshot.open("rb") as file:
            facts = json.loads(file.readline(_HEADER))
        is_ours = all(facts[name] == value for name, value in _origin(paths).items())
        return int(facts["num_events"]) if is_ours else 0
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def _origin(paths: RunPaths) -> dict[str, str]:
    """What a snapshot must have in common with who reads it: the code, and the frozen plan."""
    return {"code": _code(), "plan": hashlib.sha256(paths.plan.read_bytes()).hexdigest()}


@cache
def _code() -> str:
    """A digest of all code on which a folded history depends, and of how numbers lie in memory."""
    digest = hashlib.sha256(sys.byteorder.encode())
    for part in _SOURCES:
        path = _ROOT / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _seal(*parts: bytes | memoryview) -> bytes | None:
    """This user's signature of the whole content; None where no key can be kept."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    signed = signature([f"snapshot {digest.hexdigest()}"])
    return None if signed is None else signed.encode()


def _digest_of(journal: Path, size: int) -> str:
    """Of the first ``size`` bytes; of all where it is shorter."""
    digest = hashlib.sha256()
    with journal.open("rb") as file:
        while size > 0 and (piece := file.read(min(size, _PIECE))):
            digest.update(piece)
            size -= len(piece)
    return digest.hexdigest()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without passes of the garbage collector over objects that are made by the million, and all stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
