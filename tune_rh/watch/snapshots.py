"""Keeps a run's snapshot near the end of its journal, so that opening a long run does not fold all of it again."""

from __future__ import annotations

from tune_rh.record.events import Event, SessionEnded
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.record.snapshot import file as snapshot

_FEWEST = 20_000
"""A shorter journal is folded in less time than a snapshot is worth."""
_SHARE, _AT_END = 20, 2_000


class SnapshotKeeper:
    """A view of a run (`tune_rh.watch.follower`): renews the snapshot whenever a twentieth of the journal is new.

    So all snapshots of a run together cost no more than twenty of its last one, and at most a twentieth is folded.
    """

    def __init__(self, paths: RunPaths, history: History) -> None:
        self._paths, self._history = paths, history
        self._prefix = snapshot.Prefix(paths.journal)
        self._num_saved = snapshot.num_events(paths)
        self._renew(max(_FEWEST, history.num_events // _SHARE))

    def __call__(self, event: Event) -> None:
        """See to it that the snapshot is recent, once ``event`` is in the history."""
        at_end = isinstance(event, SessionEnded)
        self._renew(_AT_END if at_end else max(_FEWEST, self._history.num_events // _SHARE))

    def _renew(self, most_behind: int) -> None:
        num = self._history.num_events
        if num < _FEWEST or num - self._num_saved < most_behind:
            return
        self._prefix.advance(num)
        snapshot.save(self._history, self._prefix, self._paths)
        self._num_saved = num
