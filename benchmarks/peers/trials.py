"""What all peers share: configs drawn without repetition, trials that follow a replicate each, and random search."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from trainables.worker.report import Evaluated, MemberId, Report
from tune_rh.decide.scheduler import Finish, RunMember, Wait
from tune_rh.simulation.clock import Table


class Draws:
    """Configs without repetition until all were tried, then again with another replicate of each."""

    def __init__(self, table: Table, seed: int) -> None:
        self._table = table
        rng = random.Random(seed)
        self._order = rng.sample(range(len(table.configs)), len(table.configs))
        self._replicates = [rng.sample(range(len(curves)), len(curves)) for curves in table.curves]
        self._used: set[int] = set()

    @property
    def exhausted(self) -> bool:
        """Whether every replicate of every config was taken."""
        return not any(self._replicates)

    def next(self) -> int:
        """The next config at random."""
        used = self._now_used()
        return next(config for config in self._order if config not in used)

    def nearest(self, config: Mapping[str, Any]) -> int:
        """The config nearest to a draw, among those of this pass."""
        return self._table.nearest(config, self._now_used())

    def take(self, config: int) -> int:
        """Use a config; returns its replicate."""
        self._used.add(config)
        return self._replicates[config].pop()

    def _now_used(self) -> set[int]:
        spent = {config for config, left in enumerate(self._replicates) if not left}
        if len(self._used | spent) == len(self._replicates):
            self._used = set()
        return self._used | spent


class Peer:
    """What all peers share: trials that start at zero and end at ``until_step`` or when their tool stops them.

    A trial is the one member of a candidate that is called by its number. Values are minimised.
    """

    def __init__(self, table: Table, grace: int, until_step: int, seed: int) -> None:
        self.table, self.grace, self.until_step, self.seed = table, grace, until_step, seed
        self.draws = Draws(table, seed)
        self.last: dict[str, tuple[float, int]] = {}
        self._sign = 1.0 if table.mode == "min" else -1.0
        self._places: list[tuple[int, int]] = []

    def next_job(self, prefer: MemberId | None = None) -> RunMember | Wait | Finish:
        """See `tune_rh.simulation.clock.Tuner`."""
        if self.draws.exhausted:
            return Finish()
        key = str(len(self._places))
        config = self.begin(key)
        self._places.append((config, self.draws.take(config)))
        return RunMember(MemberId(key, 0), 0, self.until_step)

    def on_report(self, report: Report) -> bool:
        """See `tune_rh.simulation.clock.Tuner`. A diverged trial is one that raised: its tool hears in `close`."""
        assert isinstance(report, Evaluated)
        key, value = report.member.candidate, self._sign * report.metrics[self.table.objective]
        if report.diverged:
            self.last.pop(key, None)
            goes_on = False
        else:
            self.last[key] = (value, self.place(report.member)[0])
            goes_on = self.decide(key, report.step, value) and report.step < self.until_step
        if not goes_on:
            self.close(key)
        return goes_on

    def on_failure(self, member: MemberId, error: str) -> None:
        """See `tune_rh.simulation.clock.Tuner`."""
        self.last.pop(member.candidate, None)
        self.close(member.candidate)

    def place(self, member: MemberId) -> tuple[int, int]:
        """See `tune_rh.simulation.clock.Side`."""
        return self._places[int(member.candidate)]

    def incumbent(self) -> int | None:
        """The config of the trial whose last result is the best."""
        return min(self.last.values())[1] if self.last else None

    def begin(self, key: str) -> int:
        """A new trial: which config."""
        return self.draws.next()

    def decide(self, key: str, step: int, value: float) -> bool:
        """Whether the trial goes on after this result."""
        return True

    def close(self, key: str) -> None:
        """The trial is over; it is not in ``last`` if it was lost."""


class RandomSearch(Peer):
    """Every trial to the end; of configs with several trials the mean counts."""

    def __init__(self, table: Table, grace: int, until_step: int, seed: int) -> None:
        super().__init__(table, grace, until_step, seed)
        self._done: dict[int, list[float]] = defaultdict(list)

    def close(self, key: str) -> None:
        """See `Peer`."""
        if key in self.last:
            value, config = self.last[key]
            self._done[config].append(value)

    def incumbent(self) -> int | None:
        """The best mean among configs with a finished trial; before there is one, the best last result."""
        if not self._done:
            return super().incumbent()
        return min(self._done, key=lambda config: (fmean(self._done[config]), config))
