"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

_HIDDEN = re.compile(r"\..+\.[0-9a-f]{32}\.tmp", re.DOTALL)


def write_atomic(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write ``content`` so that readers see the old file or the new one, never half of it; raises OSError.

    ``durable`` waits until it is on the disk; what can be made again does without.
    """
    with replacing(path, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def read_fields(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """The fields that a file of TOML or JSON holds; raises ValueError saying in words why it cannot be read.

    Anything but a regular file is refused: a pipe or a device may never end.
    """
    if not path.is_file():
        raise ValueError("is no regular file" if os.path.lexists(path) else "is not there")
    try:
        fields = parse(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except OSError as error:
        raise ValueError(str(error.strerror)) from error
    if not isinstance(fields, dict):
        raise ValueError(f"holds a {type(fields).__name__}, not fields with names")
    return fields


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` that takes its place once the block ends; an error leaves ``path`` as it was."""
    temporary = beside(path)
    try:
        with temporary.open("xb") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path`` that takes its name once the block ends; an error leaves nothing behind.

    ``path`` may be an empty folder. Raises OSError.
    """
    temporary = beside(path)
    make_folder(path.parent)
    temporary.mkdir()
    try:
        yield temporary
        for file in (*temporary.iterdir(), temporary):
            sync(file)
        os.rename(temporary, path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256(path: Path) -> str:
    """Of a file, read piece by piece; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path) -> None:
    """Make a folder, with those above it, so that their names survive a power cut; raises OSError."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder so that readers see it whole or not at all; raises OSError."""
    hidden = beside(path)
    os.rename(path, hidden)
    shutil.rmtree(hidden)


def beside(path: Path) -> Path:
    """A hidden name in the folder of ``path`` that no other process or thread uses; `sweep` knows it."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left in ``folder`` beside ``name``: folders, and files that nothing is writing."""
    for path in folder.glob(f".{name}.*.tmp"):
        if _HIDDEN.fullmatch(path.name) and not _is_written(path):
            with suppress(OSError):  # what cannot be removed is in nobody's way
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _is_written(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def sync(path: Path) -> None:
    """Wait until a file, or which names a folder holds, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
