"""What Ray says on the driver's standard error goes to a file: Ray's libraries write there without asking Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """While the block runs standard error is ``log``; what Python writes to ``sys.stderr`` comes out as before."""
    log.parent.mkdir(parents=True, exist_ok=True)
    ours, before = sys.stderr, os.dup(2)
    with ExitStack() as stack:
        stack.callback(os.close, before)
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
        stack.callback(os.dup2, before, 2)
        if _descriptor(ours) == 2:
            to = stack.enter_context(
                open(before, "w", encoding=ours.encoding, errors="backslashreplace", buffering=1, closefd=False)
            )
            stack.enter_context(redirect_stderr(to))
        yield


def _descriptor(stream: object) -> int | None:
    try:
        return stream.fileno()  # type: ignore[attr-defined, no-any-return]
    except (AttributeError, OSError, ValueError):  # it is no file: under a notebook, or captured
        return None
