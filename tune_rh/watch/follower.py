"""Views of a run, such as study.db and TensorBoard, kept up to date beside the search: whatever they do, it goes on.

A thread folds the journal into a history of its own, so a view may be slow, locked, full or broken. It begins with a
session's first job: what a view has missed is caught up beside the search, not before it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Thread

from tune_rh.plan.file import load_frozen
from tune_rh.record.events import Event, JobStarted, SessionEnded
from tune_rh.record.history import History
from tune_rh.record.journal import Mark, RunPaths, read
from tune_rh.record.snapshot.file import load
from tune_rh.watch.spared import spared

OpenView = Callable[[History], Callable[[Event], object]]
"""Opens a view and brings it up to date with a history; what it returns takes each event once that history has it."""
_Say = Callable[[str], object]
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0
_LET_GO_S, _CATCH_UP_S = 10.0, 300.0  # how long a session that was stopped, or is finished, waits for its views
_LATER = "`tune-rh resume` brings it up to date"


class Follower:
    """Keeps ``views``, by name, up to date with a run; a watcher of `tune_rh.run.session.Session`.

    Args:
        paths: of the run.
        num_events: how many events its journal has already.
        views: what opens each.
        say: takes a line for people, in the session's own thread.
    """

    def __init__(self, paths: RunPaths, num_events: int, views: Mapping[str, OpenView], say: _Say) -> None:
        self._paths, self._num_events, self._say = paths, num_events, say
        self._said: SimpleQueue[str] = SimpleQueue()
        self._views = [_Guarded(name, open_view, self._said.put) for name, open_view in views.items()]
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._thread = Thread(target=self._follow, name="follower", daemon=True)
        self._has_begun = self._is_left_alone = False

    def __call__(self, event: Event) -> None:
        """Take an event in; after the last one of a session wait until the views have it, or cannot have it."""
        self._events.put(event)
        is_finished = isinstance(event, SessionEnded) and event.reason == "finished"
        if not self._has_begun and (isinstance(event, JobStarted) or is_finished):
            self._has_begun = True
            with self._spared():
                self._thread.start()
        if isinstance(event, SessionEnded) and self._thread.ident is not None:
            self._events.put(None)
            self._thread.join(_CATCH_UP_S if is_finished else _LET_GO_S)
            self._is_left_alone = True
            if self._thread.is_alive():
                self._tell_behind("it takes too long")
        while not self._said.empty():
            self._say(self._said.get())

    def _follow(self) -> None:
        # A signal that this thread took would not wake the thread that has to act on it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        with self._spared():
            self._keep_up()

    def _spared(self) -> AbstractContextManager[None]:
        return spared(self._tell_behind)

    def _tell_behind(self, why: str) -> None:
        names = " and ".join(view.name for view in self._views)
        self._said.put(f"warning: {names}: behind the journal ({why}); {_LATER}")

    def _keep_up(self) -> None:
        plan = load_frozen(self._paths.plan)
        history, mark = load(self._paths, plan) or (History(plan), Mark())
        for event in islice(read(self._paths.journal, mark=mark), self._num_events - history.num_events):
            history.apply(event)
        is_last = False
        while not is_last and not self._is_left_alone:
            try:
                heard = self._events.get(timeout=_FIRST_PAUSE_S)
            except Empty:
                heard = None
            else:
                is_last = heard is None
            if heard is not None:
                history.apply(heard)
            for view in self._views:
                view.update(history, heard, is_last=is_last)


def catch_up(history: History, views: Mapping[str, OpenView], say: _Say) -> None:
    """Bring views up to date with a run in which nothing is left to do."""
    for name, open_view in views.items():
        _Guarded(name, open_view, say).update(history, None, is_last=True)


class _Guarded:
    """A view whose errors are said once and then tried again, less and less often."""

    def __init__(self, name: str, open_view: OpenView, say: _Say) -> None:
        self.name = name
        self._open, self._say = open_view, say
        self._view: Callable[[Event], object] | None = None
        self._pause_s, self._due = _FIRST_PAUSE_S, 0.0
        self._is_told = False

    def update(self, history: History, event: Event | None, *, is_last: bool = False) -> None:
        """Show the view what is new: ``event``, or after an error everything."""
        if self._view is None and time.monotonic() < self._due and not is_last:
            return
        with spared(lambda why: self._put_off(why, is_last)):
            if self._view is None:
                self._view = self._open(history)
                self._pause_s = _FIRST_PAUSE_S
            elif event is not None:
                self._view(event)

    def _put_off(self, why: str, is_last: bool) -> None:
        self._view = None
        self._due = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        if is_last:
            self._say(f"warning: {self.name}: behind the journal ({why}); {_LATER}")
        elif not self._is_told:
            self._say(f"warning: {self.name}: cannot be written ({why}); the search goes on, and it is caught up later")
        self._is_told = True
