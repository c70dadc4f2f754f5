"""A search on recorded curves under a virtual clock: the same policy, other people's training.

`Clock` moves W workers through the curves of a table and asks a `Tuner` what each of them does; `PolicyTuner` is the
policy of this project (`tune_rh.policy` over `tune_rh.history`), and whatever speaks the same protocol can be put
beside it on the same table with the same workers and the same budget.

What it is not: a model of training. Values and seconds are those of the table; a plan's family, space and fixed
fields play no part, nor do rules on metrics that a table has not (health, train loss).
"""

from __future__ import annotations

import heapq
import math
import random
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tune_rh.curve_table import Curve, Parameter, Value
from tune_rh.errors import PlanError

Array = NDArray[np.float64]
Stretch = tuple[int, float, float]
T = TypeVar("T")


class Table(Protocol):
    """The part of a `tune_rh.curve_table.CurveTable` that a simulation uses; curves may be made when asked for."""

    @property
    def name(self) -> str:
        """What the table is called."""

    @property
    def objective(self) -> str:
        """Name of the values."""

    @property
    def mode(self) -> Literal["min", "max"]:
        """Which of them are better."""

    @property
    def configs(self) -> Sequence[Mapping[str, Value]]:
        """The hyperparameters of each config."""

    @property
    def labels(self) -> Sequence[str]:
        """A name for each config."""

    @property
    def curves(self) -> Sequence[Sequence[Curve]]:
        """For each config its replicates."""

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """What a sampler may draw; empty where configs are but numbered."""

    @property
    def steps(self) -> Sequence[int]:
        """Every step with a reading, increasing."""

    @property
    def truth(self) -> Array:
        """(configs,) what a search looks for, minimised."""

    def nearest(self, config: Mapping[str, Value], exclude: set[int]) -> int:
        """The config nearest to ``config`` that is not in ``exclude``."""


@dataclass(frozen=True)
class Work:
    """A job: move the member ``key`` from one step to another.

    Attributes:
        config, replicate: which curve of the table it follows.
        from_step: where it stands (0: at the start).
        until_step: the clock ends the job there, if the tuner did not before.
    """

    key: str
    config: int
    replicate: int
    from_step: int
    until_step: int


class Tuner(Protocol):
    """What decides, as the clock sees it. Values are minimised."""

    @property
    def finished(self) -> bool:
        """Whether nothing will ever be started again."""

    def next(self, holding: str | None = None) -> Work | None:
        """What a free worker does, or None: nothing for now. ``holding`` is the member that it has in memory."""

    def report(self, work: Work, step: int, value: float, seconds: float) -> bool:
        """A member's next reading (not finite: diverged), ``seconds`` after the one before. Whether it goes on."""

    def end(self, work: Work, *, failed: bool = False) -> None:
        """The worker has let go of the member; with ``failed`` it was given up after its retries."""

    def incumbent(self) -> int | None:
        """The config that would be handed over now, by the tool's own rule; None before there is any."""


@dataclass(frozen=True)
class Conditions:
    """What the clock runs on.

    Attributes:
        workers: jobs at a time.
        failures: probability that a job fails instead of giving its next report: the stretch is lost, and the job
            starts again from the report before; the member fails for good with failure ``max_failures`` + 1 of a job.
        max_failures: see ``failures``.
        stragglers: sigma of the log-normal factor (median 1) on the seconds of each job.
        overhead_s: seconds that a job takes to start; none for one that goes on with the member in memory.
        max_steps: the simulation ends once so many steps were computed, those of lost stretches included.
        trace_every: reports between two points of the trace.

    Raises:
        PlanError: naming the field, its value and what is allowed.
    """

    workers: int = 1
    failures: float = 0.0
    max_failures: int = 2
    stragglers: float = 0.0
    overhead_s: float = 0.0
    max_steps: int | None = None
    trace_every: int = 1

    def __post_init__(self) -> None:
        for name in ("workers", "max_steps", "trace_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PlanError(f"{name} = {value}: at least 1")
        for name in ("max_failures", "stragglers", "overhead_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise PlanError(f"{name} = {getattr(self, name)}: 0 or more")
        if not 0 <= self.failures < 1:
            raise PlanError(f"failures = {self.failures}: a probability below 1")


@dataclass(frozen=True, eq=False)
class Trace:
    """One simulated search, a point every so many reports and one at the end.

    Attributes:
        seconds: (points,) virtual time.
        steps: (points,) steps computed so far.
        regret: (points,) true value of the incumbent above the best of the table; NaN before there is an incumbent.
        busy: (points,) workers that have a job.
        idle: share of the slots' time without a job.
        decision_s: (events,) real seconds that the tuner took for a report and all that followed from it.
    """

    seconds: Array
    steps: Array
    regret: Array
    busy: Array
    idle: float
    decision_s: Array

    def at(self, steps: Array, prior: float) -> Array:
        """(n,) regret when so many ``steps`` had been computed; ``prior`` before there was an incumbent."""
        index = np.searchsorted(self.steps, steps, side="right") - 1
        regret = np.where(index >= 0, self.regret[np.maximum(index, 0)], np.nan)
        return np.where(np.isnan(regret), prior, regret)

    def seconds_at(self, steps: Array) -> Array:
        """(n,) virtual time at which so many ``steps`` had been computed, or the end."""
        index = np.searchsorted(self.steps, steps)
        return self.seconds[np.minimum(index, len(self.seconds) - 1)]


class _Job:
    """A worker's job: what is left of it on its curve."""

    __slots__ = ("ahead", "factor", "num_failures", "step", "work")

    def __init__(self, work: Work, ahead: list[Stretch], factor: float) -> None:
        self.work = work
        self.ahead = ahead[::-1]
        self.factor = factor
        self.step = work.from_step
        self.num_failures = 0


class Clock:
    """Drives one tuner through one search; see the module.

    Args:
        tuner: decides.
        table: the curves.
        eval_every: a report at each of the table's steps that is a multiple of this.
        conditions: workers, failures and so on.
        seed: of stragglers and failures.
    """

    def __init__(
        self, tuner: Tuner, table: Table, eval_every: int, conditions: Conditions = Conditions(), seed: int = 0
    ) -> None:
        self.tuner, self.table, self.conditions = tuner, table, conditions
        self.now, self.steps, self.busy = 0.0, 0, 0
        self._grid = eval_grid(table, eval_every)
        self._random = random.Random(seed)
        self._heap: list[tuple[float, int, _Job]] = []
        self._count = 0
        self._idle_s = 0.0
        self._deciding_s = 0.0
        self._decision_s = array("d")
        self._points = array("d")
        self._best = float(table.truth.min())

    def run(self) -> Trace:
        """Until the tuner is finished or the budget is spent."""
        workers, max_steps = self.conditions.workers, self.conditions.max_steps
        self._fill()
        while self._heap and (max_steps is None or self.steps < max_steps):
            at, _, job = heapq.heappop(self._heap)
            self._idle_s += (workers - self.busy) * (at - self.now)
            self.now = at
            self._deciding_s = 0.0
            self._arrive(job)
            self._decision_s.append(self._deciding_s)
            if len(self._decision_s) % self.conditions.trace_every == 0:
                self._point()
        assert self._heap or self.tuner.finished, "nothing runs, and the tuner still waits for something"
        if len(self._decision_s) % self.conditions.trace_every or not self._points:
            self._point()
        seconds, steps, regret, busy = np.array(self._points).reshape(-1, 4).T
        idle = self._idle_s / (workers * self.now) if self.now else 0.0
        return Trace(seconds, steps, regret, busy, idle, np.array(self._decision_s))

    def _arrive(self, job: _Job) -> None:
        """The job's next report is due."""
        step, value, seconds = job.ahead[-1]
        self.steps += step - job.step
        if self.conditions.failures and self._random.random() < self.conditions.failures:
            job.num_failures += 1
            if job.num_failures <= self.conditions.max_failures:
                self._go(job, self.conditions.overhead_s)
            else:
                self._end(job, failed=True)
            return
        job.step = step
        job.ahead.pop()
        goes_on = self._timed(lambda: self.tuner.report(job.work, step, value, seconds * job.factor))
        if goes_on and job.ahead:
            self._go(job, 0.0)
        else:
            self._end(job, failed=False)

    def _end(self, job: _Job, *, failed: bool) -> None:
        self.busy -= 1
        self._timed(lambda: self.tuner.end(job.work, failed=failed))
        self._fill(job.work.key)

    def _fill(self, holding: str | None = None) -> None:
        """Ask for every free worker, first for the one that still has the member ``holding`` in memory."""
        while self.busy < self.conditions.workers:
            key = holding
            work = self._timed(lambda key=key: self.tuner.next(key))  # type: ignore[misc]
            if work is None:
                return
            self._start(work, in_memory=work.key == holding)
            holding = None

    def _start(self, work: Work, *, in_memory: bool) -> None:
        sigma = self.conditions.stragglers
        factor = math.exp(self._random.gauss(0.0, sigma)) if sigma else 1.0
        curve = self.table.curves[work.config][work.replicate]
        sign = 1.0 if self.table.mode == "min" else -1.0
        job = _Job(work, stretches(curve, self._grid, work.from_step, work.until_step, sign), factor)
        self.busy += 1
        self._go(job, 0.0 if in_memory else self.conditions.overhead_s)

    def _go(self, job: _Job, overhead_s: float) -> None:
        self._count += 1
        due = self.now + overhead_s + job.ahead[-1][2] * job.factor
        heapq.heappush(self._heap, (due, self._count, job))

    def _timed(self, decide: Callable[[], T]) -> T:
        start = time.perf_counter()
        decided = decide()
        self._deciding_s += time.perf_counter() - start
        return decided

    def _point(self) -> None:
        chosen = self.tuner.incumbent()
        regret = math.nan if chosen is None else float(self.table.truth[chosen]) - self._best
        self._points.extend((self.now, self.steps, regret, self.busy))


def eval_grid(table: Table, eval_every: int) -> NDArray[np.int64]:
    """The table's steps at which members report: the multiples of ``eval_every``."""
    return np.array([step for step in table.steps if step % eval_every == 0], dtype=np.int64)


def stretches(
    curve: Curve, grid: NDArray[np.int64], from_step: int, until_step: int, sign: float = 1.0
) -> list[Stretch]:
    """What a member reports after ``from_step``: (step, minimised value, seconds since the report before).

    A curve that was lost before a step of the grid reports NaN there, and nothing after it.

    Raises:
        ValueError: the curve has no reading at a step of the grid; `tune_rh.policy_tuner.check` finds it before.
    """
    ahead: list[Stretch] = []
    index = np.searchsorted(curve.steps, from_step, side="right") - 1
    elapsed = float(curve.seconds[index]) if index >= 0 else 0.0
    for step in grid[np.searchsorted(grid, from_step, side="right") : np.searchsorted(grid, until_step, side="right")]:
        index = np.searchsorted(curve.steps, step, side="right") - 1
        lost = curve.is_lost and step > curve.steps[-1]
        if not lost and (index < 0 or curve.steps[index] != step):
            raise ValueError(f"seed {curve.seed}: no reading at step {step}")
        value = math.nan if lost else sign * float(curve.values[index])
        seconds = float(curve.seconds[index])
        ahead.append((int(step), value, seconds - elapsed))
        if not math.isfinite(value):
            break
        elapsed = seconds
    return ahead


@dataclass(frozen=True)
class Row:
    """What repeated searches had reached at a share of the budget.

    Attributes:
        steps: computed so far.
        seconds: mean virtual time.
        regret: mean over the repeats.
        low, high: its 95% interval (Student's t over the repeats, not below 0); NaN for one repeat.
    """

    fraction: float
    steps: int
    seconds: float
    regret: float
    low: float
    high: float


def rows(traces: Sequence[Trace], budget: float, prior: float, fractions: Iterable[float]) -> list[Row]:
    """Mean regret over repeats at ``fractions`` of ``budget`` steps; ``prior`` counts before there is an incumbent."""
    from scipy import stats

    found = []
    for fraction in fractions:
        at = np.array([fraction * budget])
        regrets = np.concatenate([trace.at(at, prior) for trace in traces])
        seconds = float(np.mean([trace.seconds_at(at)[0] for trace in traces]))
        mean, half = float(regrets.mean()), math.nan
        if len(regrets) > 1:
            half = float(stats.t.ppf(0.975, len(regrets) - 1) * regrets.std(ddof=1) / math.sqrt(len(regrets)))
        low = math.nan if math.isnan(half) else max(0.0, mean - half)
        found.append(Row(fraction, round(fraction * budget), seconds, mean, low, mean + half))
    return found


def prior_regret(table: Table) -> float:
    """Regret of the median config: what counts before a tuner has an incumbent."""
    return float(np.median(table.truth) - table.truth.min())
