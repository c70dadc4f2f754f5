"""The one place where an error of any kind does not end what it happened in: what shows a run, and decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def spared(tell: Callable[[str], object]) -> Iterator[None]:
    """Give ``tell`` in one line why the block failed, and go on behind it.

    A view, a table or a page may fail in any way that a library, a disk or a terminal can fail in, and no list of
    exceptions is long enough. Only the reader of the output that has gone is no such fault: it stops the session as
    Ctrl-C does.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - no decision comes from what is spared
        tell(f"{type(error).__name__}: {error}".splitlines()[0])
