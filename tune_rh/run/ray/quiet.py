"""What Ray says goes to a file: its libraries write to standard error without asking Python, and a thread of its own
prints what the cluster has to say to all drivers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from ray._private import worker


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """While the block runs standard error is ``log``, and what Ray prints goes there; what others write to
    ``sys.stderr`` comes out as before.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    ours, before = sys.stderr, os.dup(2)
    with ExitStack() as stack:
        stack.callback(os.close, before)
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
        stack.callback(os.dup2, before, 2)
        stack.callback(setattr, worker, "print_to_stdstream", worker.print_to_stdstream)
        worker.print_to_stdstream = _note
        if _descriptor(ours) == 2:
            to = stack.enter_context(
                open(before, "w", encoding=ours.encoding, errors="backslashreplace", buffering=1, closefd=False)
            )
            stack.enter_context(redirect_stderr(to))
        yield


def _note(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    lines = (f"({data['pid']}) {line}\n" for line in data["lines"])
    os.write(2, "".join(lines).encode(errors="backslashreplace"))


def _descriptor(stream: object) -> int | None:
    try:
        return stream.fileno()  # type: ignore[attr-defined, no-any-return]
    except (AttributeError, OSError, ValueError):  # it is no file: under a notebook, or captured
        return None
