"""What a runner is: it gives jobs from a `Search` to workers and their reports back, until the search is over."""

from __future__ import annotations

from typing import Protocol

from tune_rh.search import Search


class Runner(Protocol):
    """Runs jobs somewhere. Both runners give the same records for the same plan, time and host aside."""

    name: str
    slots: int

    def run(self, search: Search) -> None:
        """Return when ``search`` is finished, or stopped and every worker has handed its member back."""
        ...
