"""Live health: rules on every step and heartbeat of a member in training. Each fires once an episode.

Rules about training (H01, H02) keep their state with the member, in its checkpoints: after a resume they say what they
would have said. Rules about the machine (H03 to H06) begin anew with each process, for the machine may be another one.
What follows from a finding is not decided here: it goes into the report, and so into the journal.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from statistics import median

from trainables.worker.report import HealthFinding, Message, Number

_SMOOTHING = 0.99
_LEAST_GAIN, _PATIENCE_STEPS = 0.005, 1000
_CALM_STEPS = 10
_WINDOW, _IN_A_ROW = 50, 3
_RATES = {"cpu": (1 / 1.5, 1.5)}
"""Between which shares of the first throughput it may move, by device: a CPU's cores are shared with other work."""
_RATES_ELSEWHERE = (0.9, 1.1)
_LEAK_WINDOWS, _LEAK_MIB = 10, 64.0
_QUIET_BEATS = 500


@dataclass
class TrainingHealth(Message):
    """What the rules about training remember of a member.

    Attributes:
        smoothed, weight: exponential mean of the loss, and the sum of its weights.
        least, least_step: the lowest smoothed loss that counted as a new minimum, and where.
        calm: steps since a number was not finite.
        firing: rules in an episode.
        found: what fired since the last report.
    """

    smoothed: Number = 0.0
    weight: Number = 0.0
    least: Number = math.inf
    least_step: int = 0
    calm: int = 0
    firing: list[str] = field(default_factory=list)
    found: list[HealthFinding] = field(default_factory=list)

    @property
    def smoothed_loss(self) -> float:
        """The exponential mean of the finite losses so far; NaN before the first."""
        return self.smoothed / self.weight if self.weight else math.nan

    def take(self) -> tuple[HealthFinding, ...]:
        """What fired since this was last asked."""
        found, self.found = tuple(self.found), []
        return found


class Monitor:
    """The rules, at work on one member in one process.

    Args:
        health: of the member; changed in place.
        off: rules that are not looked at.
        device: that it trains on.
    """

    def __init__(self, health: TrainingHealth, off: Collection[str] = (), device: str = "cuda") -> None:
        self._health = health
        self._least_rate, self._most_rate = _RATES.get(device, _RATES_ELSEWHERE)
        self._off = off
        self._firing = set[str]()  # of the rules about the machine
        self._rates: list[float] = []
        self._reference = 0.0
        self._outside = self._inside = 0
        self._allocated: list[float] = []
        self._floors: deque[float] = deque(maxlen=_LEAK_WINDOWS + 1)
        self._warm = False
        self._retries: int | None = None
        self._quiet = 0
        self._fell_back = self._held = 0

    def on_step(self, step: int, loss: float, grad_norm: float | None) -> None:
        """Take an optimiser step in: H01 and H02."""
        health = self._health
        values = {"loss": loss} if grad_norm is None else {"loss": loss, "gradient norm": grad_norm}
        bad = [f"{name} {value:g}" for name, value in values.items() if not math.isfinite(value)]
        health.calm = 0 if bad else health.calm + 1
        if bad or health.calm >= _CALM_STEPS:
            self._episode("H01", bool(bad), step, f"non-finite {', '.join(bad)}")
        if not math.isfinite(loss):
            return
        health.smoothed = _SMOOTHING * health.smoothed + (1.0 - _SMOOTHING) * loss
        health.weight = _SMOOTHING * health.weight + (1.0 - _SMOOTHING)
        smoothed = health.smoothed / health.weight
        if smoothed < health.least - _LEAST_GAIN:
            health.least, health.least_step = smoothed, step
        stale = step - health.least_step
        if stale >= _PATIENCE_STEPS or "H02" in health.firing:
            message = f"the smoothed loss, {smoothed:.4g}, has not fallen by {_LEAST_GAIN:g} for {stale} steps"
            self._episode("H02", stale >= _PATIENCE_STEPS, step, message)

    def on_beat(
        self, step: int, rate: float, allocated_mib: float | None, retries: int, fallbacks: float | None = None
    ) -> None:
        """Take a heartbeat in: H03 to H06.

        Args:
            step: of the member.
            rate: tokens or steps a second since the last beat.
            allocated_mib: memory in use; None where nothing tells.
            retries: how often the allocator has had to try again, or given up, since the process began.
            fallbacks: of the step, from a kernel to a slower one; None for a family that reports none.
        """
        self._rates.append(rate)
        if len(self._rates) == _WINDOW:
            self._judge_rate(step, median(self._rates))
            self._rates.clear()
        if allocated_mib is not None:
            self._allocated.append(allocated_mib)
            if len(self._allocated) == _WINDOW:
                self._judge_memory(step, min(self._allocated))
                self._allocated.clear()
        self._judge_retries(step, retries)
        if fallbacks is not None:
            self._judge_fallbacks(step, fallbacks)

    def _judge_rate(self, step: int, rate: float) -> None:
        """H03: a window's median against the first; three in a row outside begin an episode, three inside end it."""
        if not self._reference:
            self._reference = rate
            return
        outside = not self._least_rate <= rate / self._reference <= self._most_rate
        self._outside, self._inside = (self._outside + 1, 0) if outside else (0, self._inside + 1)
        if (outside and self._outside < _IN_A_ROW) or (not outside and self._inside < _IN_A_ROW):
            return
        message = f"throughput {rate:,.4g} a second, {rate / self._reference - 1.0:+.0%} against the first beats"
        self._episode("H03", outside, step, message)

    def _judge_memory(self, step: int, floor: float) -> None:
        """H04: the floor of a window against the one 500 beats before; the first is left out, for caches still fill."""
        if not self._warm:
            self._warm = True
            return
        self._floors.append(floor)
        if len(self._floors) <= _LEAK_WINDOWS:
            return
        growth = floor - self._floors[0]
        if growth > _LEAK_MIB or growth < _LEAK_MIB / 2:
            message = (
                f"{growth:,.0f} MiB ({growth / 1024:.2f} GiB) more in use than {_LEAK_WINDOWS * _WINDOW} beats ago"
            )
            self._episode("H04", growth > _LEAK_MIB, step, message)

    def _judge_retries(self, step: int, retries: int) -> None:
        """H05: any growth begins an episode; many beats without end it."""
        grew = self._retries is not None and retries > self._retries
        self._retries = retries
        self._quiet = 0 if grew else self._quiet + 1
        if grew or self._quiet >= _QUIET_BEATS:
            self._episode("H05", grew, step, f"the allocator has tried again or given up {retries} times")

    def _judge_fallbacks(self, step: int, fallbacks: float) -> None:
        """H06: three beats in a row with any begin an episode, three without end it."""
        fell = fallbacks > 0
        self._fell_back, self._held = (self._fell_back + 1, 0) if fell else (0, self._held + 1)
        if max(self._fell_back, self._held) >= _IN_A_ROW:
            self._episode("H06", fell, step, f"{fallbacks:g} fallbacks in a step, in {_IN_A_ROW} beats in a row")

    def _episode(self, rule: str, holds: bool, step: int, message: str) -> None:
        """Note a finding where an episode begins; ``holds``: whether the rule is broken now."""
        firing = rule in self._health.firing or rule in self._firing
        if holds == firing or rule in self._off:
            return
        lasting = rule in ("H01", "H02")
        if not holds:
            self._health.firing.remove(rule) if lasting else self._firing.remove(rule)
            return
        self._health.firing.append(rule) if lasting else self._firing.add(rule)
        self._health.found.append(HealthFinding(rule, step, message))
