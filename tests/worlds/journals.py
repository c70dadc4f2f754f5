"""Journals whose lines a test writes itself, sealed as `tune_rh.record.journal.Journal` seals them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tune_rh.record.journal import Chain


def texts(path: Path) -> list[str]:
    """The JSON of each event of a journal."""
    chain = Chain()
    return [chain.open(line).decode() for line in path.read_bytes().splitlines(keepends=True)]


def write(path: Path, events: Iterable[str], torn: str = "") -> None:
    """A journal of these events, each as JSON; at its end ``torn`` as it stands."""
    chain = Chain()
    path.write_bytes(b"".join(map(chain.seal, events)) + torn.encode())


def extend(path: Path, events: Iterable[str]) -> None:
    """Append events to a journal."""
    write(path, [*texts(path), *events])
