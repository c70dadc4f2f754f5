"""What a caller in Python is told of a run that goes on: events, and lines for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainables.api import Progress
from tune_rh.record.events import Diagnosed, Evaluated, Event, JobStarted, Tested
from tune_rh.record.history import History
from tune_rh.results.lines import line
from tune_rh.watch.spared import spared

OnEvent = Callable[[Event, History], object]
Say = Callable[[str], object]
_EACH_MEMBER = (Diagnosed, Evaluated, JobStarted, Tested)
"""Of these there are too many to be said: they are for ``on_event``."""


class Callbacks:
    """A `tune_rh.run.execute.Audience` of functions, either of which may be left out."""

    def __init__(self, on_event: OnEvent | None, say: Say | None) -> None:
        self._on_event, self._say = on_event, say

    def say(self, line: str) -> None:
        """Hand over a line."""
        if self._say is not None:
            self._say(line)

    @contextmanager
    def bar(self, title: str) -> Iterator[Progress]:
        """Say what is being made; how far it is, is not said."""
        self.say(title)
        yield lambda done, total: None

    @contextmanager
    def follow(self, history: History) -> Iterator[Callable[[Event], object]]:
        """Hand over each event, and its line; what ``on_event`` raises ends the session."""

        def told(event: Event) -> None:
            text = ""
            if not isinstance(event, _EACH_MEMBER):
                with spared(self.say):
                    text = line(history, event)
            if text:
                self.say(text)
            if self._on_event is not None:
                self._on_event(event, history)

        yield told
