"""The start of a session: a worker in every slot, its imports done, before the first job; or one takes all jobs."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

# How long the first worker that is up waits for the others: on a cluster that is shared they may never come.
_PATIENCE_S, _SAY_EVERY_S = 60.0, 10.0


class WarmUp:
    """Counts workers that are asked for and those that are up; every ten seconds ``say`` has a line about them."""

    def __init__(self, slots: int, say: Callable[[str], object] = lambda line: None) -> None:
        self.num_asked = 0
        self._slots, self._say = slots, say
        self._up: dict[str, str] = {}
        self._began = time.monotonic()
        self._give_up_at, self._next_word_at = math.inf, self._began + _SAY_EVERY_S

    @property
    def is_over(self) -> bool:
        """Whether jobs may start: a worker is up in every slot, or the rest has had its time."""
        return len(self._up) >= self._slots or time.monotonic() > self._give_up_at

    def ask(self) -> bool:
        """Whether the next trial is only to start a worker; counts it."""
        wanted = self.num_asked < self._slots
        self.num_asked += wanted
        return wanted

    def note(self, trial_id: str, node: str = "") -> None:
        """A trial's worker is up, on a node of this name."""
        if not self._up:
            self._give_up_at = time.monotonic() + _PATIENCE_S
        self._up.setdefault(trial_id, node)

    def tell(self) -> None:
        """Say how many are up, where, and after how long, unless that was said a moment ago."""
        now = time.monotonic()
        if now < self._next_word_at:
            return
        self._next_word_at = now + _SAY_EVERY_S
        nodes = Counter(node for node in self._up.values() if node)
        where = ", ".join(f"{number} on {node}" for node, number in sorted(nodes.items()))
        self._say(
            f"{len(self._up)} of {self._slots} workers are up after {now - self._began:.0f} s"
            f"{f' ({where})' if where else ''}; each imports torch first, at a low priority"
        )
