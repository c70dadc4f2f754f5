"""The console of the command line, and who follows a launch there: a live table, or plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from analysis.escape import printable
from trainables.api import Progress as OnProgress
from tune_rh.errors import is_read_only
from tune_rh.record.events import Event, JobEnded, JobStarted
from tune_rh.record.history import History
from tune_rh.watch.spared import spared


class _Console(Console):
    """Prints text as it stands, without markup or control characters; raises BrokenPipeError where rich would exit.

    With ``may_lose`` output that cannot be written, say because the log's disk is full, is let go.
    """

    def __init__(self, *, may_lose: bool, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        self._may_lose = may_lose

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as error:
            if isinstance(error, BrokenPipeError) or not self._may_lose:
                raise
            self._buffer.clear()

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> None:
        with suppress(SystemExit):
            super().on_broken_pipe()  # silent from here on
        raise BrokenPipeError


def console(*, may_lose: bool = False) -> Console:
    """The console of this process, wide enough for its tables where output is a file.

    A session lets output that cannot be written go (``may_lose``): it must not end for that.
    """
    here = _Console(may_lose=may_lose)
    return here if here.is_terminal else _Console(may_lose=may_lose, width=140)


@contextmanager
def written(path: Path, to: Console) -> Iterator[None]:
    """Say that the block has written ``path``, or that it may not: what is found in a read-only copy is only shown."""
    try:
        yield
    except OSError as error:
        if not is_read_only(error):
            raise
        to.print(f"warning: {path}: not written ({error.strerror})", soft_wrap=True)
    else:
        to.print(f"Written: {path}", soft_wrap=True)


class Terminal:
    """The `tune_rh.run.execute.Audience` of the command line: a console."""

    def __init__(self, to: Console) -> None:
        self._to = to

    def say(self, line: str) -> None:
        """Print a line, however long, as it stands."""
        self._to.print(line, soft_wrap=True)

    @contextmanager
    def bar(self, title: str) -> Iterator[OnProgress]:
        """A progress bar, on a terminal."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._to, disable=not self._to.is_terminal) as bar:
            row = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(row, completed=done, total=total)

    @contextmanager
    def follow(self, history: History) -> Iterator[Callable[[Event], object]]:
        """A table that is kept up to date, on a terminal; elsewhere a line an event."""
        from tune_rh.cli import slots, tables  # what these import is loaded with a session, not for a console alone
        from tune_rh.results import lines

        began, note = time.monotonic(), ""

        def told(event: Event) -> str:
            """What slots wait for, where the event has changed that; read in the session's own thread."""
            nonlocal note
            before = note
            if isinstance(event, JobStarted | JobEnded):
                note = _shown(slots.waiting, history)
            return note if note != before else ""

        def say(event: Event) -> None:
            for line in (_shown(lines.line, history, event), told(event)):
                if line:
                    self.say(line)

        if self._to.is_terminal:
            from rich.console import Group
            from rich.live import Live

            def render() -> RenderableType:
                table = _shown(tables.progress, history, began)
                return Group(table, Text(note)) if note else table

            with Live(console=self._to, get_renderable=render, refresh_per_second=2):
                yield told
        else:
            yield say


def _shown(show: Callable[..., Any], *given: Any) -> Any:
    """What ``show`` makes of what it is ``given``, or one line about why it cannot: the search goes on."""
    lines: list[str] = []
    with spared(lines.append):
        return show(*given)
    return f"warning: this cannot be shown ({lines[0]})"
