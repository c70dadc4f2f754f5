"""Watchers of the user's choice: a tracker such as MLflow, or any function that takes an event and the history.

They run in a thread of their own (`tune_rh.watch.follower`), so that a slow server or a bug in one holds up neither the
search nor the views that every run has. How far each has been told lies in the run's folder: a watcher that fails, or
comes back with a resume, goes on with the event that it has not got.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from trainables.files import make_folder
from tune_rh.errors import PlanError
from tune_rh.plan.named import named_object
from tune_rh.plan.schema import WATCHERS
from tune_rh.record.events import Event
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths, mark_after, read
from tune_rh.watch.follower import OpenView


class Watcher(Protocol):
    """What follows a run.

    One that has a method ``begin(folder, history)`` is told so before its first event, and after it has failed.
    """

    def __call__(self, event: Event, history: History, /) -> object:
        """Take an event that ``history`` has, which may have later ones while a watcher catches up."""
        ...


WatcherLike = str | Watcher | Callable[[], Watcher]
"""A watcher as a user gives it: a name, an object, or a class that is called without arguments."""


def find(given: WatcherLike) -> Any:
    """The watcher that is given, or its class.

    Raises:
        PlanError: naming it: it cannot be imported, its library is missing, or it cannot be called.
    """
    if not isinstance(given, str):
        if not callable(given):
            raise PlanError(f"watchers: {given!r}: cannot be called with an event and the history")
        return given
    if given in WATCHERS and given != "csv" and find_spec(given) is None:
        raise PlanError(f"watch = {given!r}: needs {given}, which is not installed: pip install 'tune-rh[{given}]'")
    found = named_object("watch", given, WATCHERS)
    if not callable(found):
        raise PlanError(f"watch = {given!r}: is a {type(found).__name__}, not a class or a function")
    return found


def watcher_views(paths: RunPaths, watchers: Sequence[WatcherLike]) -> Mapping[str, OpenView]:
    """What tells each of ``watchers`` about the run at ``paths``, by name; raises as `find`."""
    names, views = Counter[str](), dict[str, OpenView]()
    for given in (one for i, one in enumerate(watchers) if one not in watchers[:i]):
        find(given)
        name = _name(given)
        names[name] += 1
        unique = name if names[name] == 1 else f"{name}-{names[name]}"
        views[unique] = _Once(paths, unique, given)
    return views


class _Once:
    """Opens a watcher as a view: it is told each event of the journal once, in order, across sessions."""

    def __init__(self, paths: RunPaths, name: str, given: WatcherLike) -> None:
        self._paths, self._given = paths, given
        self._cursor = _Cursor(paths.watch / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.told")
        self._watcher: Any = None

    def __call__(self, history: History) -> Callable[[Event], object]:
        """Tell it what it has missed; what comes next is told by the function that is returned."""
        if self._watcher is None:
            found = find(self._given)
            self._watcher = found() if isinstance(found, type) else found
        begin = getattr(self._watcher, "begin", None)
        if begin is not None:
            begin(self._paths.root, history)
        for event in self._missed(history.num_events):
            self._tell(event, history)
        return lambda event: self._tell(event, history)

    def _missed(self, num_events: int) -> Iterator[Event]:
        told = self._cursor.read()
        mark = mark_after(self._paths.journal, told)
        return islice(read(self._paths.journal, mark=mark, follows=True), max(0, num_events - told))

    def _tell(self, event: Event, history: History) -> None:
        self._watcher(event, history)
        self._cursor.advance()


class _Cursor:
    """How many events a watcher has been told, in a file that survives kill -9."""

    _FORM = "%019d\n"

    def __init__(self, path: Path) -> None:
        self._path, self._num = path, 0

    def read(self) -> int:
        """The number in the file; 0 where there is none."""
        text = self._path.read_text(encoding="ascii") if self._path.exists() else ""
        self._num = int(text) if re.fullmatch(r"\d{19}\n", text) else 0
        return self._num

    def advance(self) -> None:
        """Count one more."""
        self._num += 1
        make_folder(self._path.parent)
        # One write of as many bytes as lie there: whenever the process dies, the file holds one number or the other.
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, (self._FORM % self._num).encode(), 0)
        finally:
            os.close(descriptor)


def _name(given: WatcherLike) -> str:
    if isinstance(given, str):
        return given
    named: Any = given if hasattr(given, "__qualname__") else type(given)
    return f"{named.__module__}.{named.__qualname__}"
