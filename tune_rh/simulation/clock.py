"""A search on recorded curves under a virtual clock: the same session and policy, other people's training.

`Clock` is a runner: it moves W workers through the curves of a table, and asks a `Tuner` what each of them does. A
`tune_rh.run.session.Session` is one (`tune_rh.simulation.table_source` puts it on a table). Another tool needs the same
three methods to be compared with it on the same table, with the same workers and the same budget.

What it is not: a model of training. Values and seconds are those of the table; a plan's family, space and fixed
fields play no part, nor do rules on metrics that a table has not (health, train loss).
"""

from __future__ import annotations

import heapq
import math
import random
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainables.worker.report import Evaluated, MemberId, Report, Tested
from tune_rh.decide.scheduler import Finish, RunMember, Wait
from tune_rh.errors import PlanError
from tune_rh.simulation.curve_table import Curve, Parameter, Value

Array = NDArray[np.float64]
T = TypeVar("T")


class Table(Protocol):
    """What a simulation uses of a `tune_rh.simulation.curve_table.CurveTable`; curves may be made when asked for."""

    @property
    def name(self) -> str: ...
    @property
    def objective(self) -> str: ...
    @property
    def mode(self) -> Literal["min", "max"]: ...
    @property
    def configs(self) -> Sequence[Mapping[str, Value]]: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def curves(self) -> Sequence[Sequence[Curve]]: ...
    @property
    def parameters(self) -> Mapping[str, Parameter]: ...
    @property
    def steps(self) -> Sequence[int]: ...
    @property
    def truth(self) -> Array: ...
    def nearest(self, config: Mapping[str, Value], exclude: set[int]) -> int: ...


class Tuner(Protocol):
    """What decides, as a worker sees it: the three methods of `tune_rh.run.session.Session` that a runner calls."""

    def next_job(self, prefer: MemberId | None = None) -> RunMember | Wait | Finish:
        """What a free worker does; ``prefer`` is the member that it has in memory."""

    def on_report(self, report: Report) -> bool:
        """Take a report in; whether the worker goes on with the member."""

    def on_failure(self, member: MemberId, error: str) -> None:
        """The member's job was given up after its retries."""


class Side(Protocol):
    """What the clock must know of a tuner beside its decisions."""

    def place(self, member: MemberId) -> tuple[int, int]:
        """The config and the replicate of the table whose curve the member follows."""

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
        overhead_s: seconds that a job takes to start; none where it goes on with the member in memory.
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
        decision_s: (reports,) real seconds that the tuner took for a report and all that followed from it.
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


@dataclass(slots=True)
class _Member:
    """Where a member stands, as its checkpoints would say."""

    step: int = 0
    best: float = math.inf
    best_step: int = 0


@dataclass(slots=True)
class _Job:
    """A worker's job: the reports ``ahead``, the next one last, with their seconds to be taken ``factor`` times."""

    id: MemberId
    member: _Member
    ahead: list[tuple[int, float, float]]
    factor: float
    num_failures: int = 0


class Clock:
    """A runner with virtual time; see the module. It runs one search.

    Members report at each of the table's steps that is a multiple of ``eval_every``. Jobs end at the steps of
    ``gates``; a member that goes on from the last one has its test split read. The seed is of stragglers and failures.
    """

    name = "virtual"

    def __init__(
        self,
        table: Table,
        eval_every: int,
        gates: Sequence[int],
        conditions: Conditions = Conditions(),
        seed: int = 0,
    ) -> None:
        self.table, self.gates, self.conditions, self.slots = table, gates, conditions, conditions.workers
        self.now, self.steps, self.busy = 0.0, 0, 0
        self._grid = eval_grid(table, eval_every)
        self._sign = 1.0 if table.mode == "min" else -1.0
        self._random = random.Random(seed)
        self._heap: list[tuple[float, int, _Job]] = []
        self._members: dict[MemberId, _Member] = defaultdict(_Member)
        self._count = 0
        self._finished = False
        self._idle_s = 0.0
        self._deciding_s = 0.0
        self._decision_s = array("d")
        self._points = array("d")
        self._best = float(table.truth.min())

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self.now

    def run(self, tuner: Tuner, side: Side) -> Trace:
        """Until the tuner has nothing left to do, or the budget is spent."""
        self._tuner, self._side = tuner, side
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
        assert self._heap or self._finished, "nothing runs, and the tuner still waits for something"
        if len(self._decision_s) % self.conditions.trace_every or not self._points:
            self._point()
        seconds, steps, regret, busy = np.array(self._points).reshape(-1, 4).T
        idle = self._idle_s / (workers * self.now) if self.now else 0.0
        return Trace(seconds, steps, regret, busy, idle, np.array(self._decision_s))

    def _arrive(self, job: _Job) -> None:
        """The job's next report is due."""
        step, value, seconds = job.ahead[-1]
        self.steps += step - job.member.step
        if self.conditions.failures and self._random.random() < self.conditions.failures:
            job.num_failures += 1
            if job.num_failures <= self.conditions.max_failures:
                self._go(job, self.conditions.overhead_s)
                return
            self._timed(lambda: self._tuner.on_failure(job.id, "failed more often than it is tried again"))
            self._free(job.id)
            return
        job.ahead.pop()
        job.member.step = step
        if value < job.member.best:
            job.member.best, job.member.best_step = value, step
        metrics = {self.table.objective: self._sign * value}
        diverged = not math.isfinite(value)
        report = Evaluated(job.id, step, metrics, seconds * job.factor, 0.0, diverged=diverged)
        if not self._timed(lambda: self._tuner.on_report(report)):
            self._free(job.id)
        elif job.ahead:
            self._go(job, 0.0)
        else:
            self._go_on(job.id, step)

    def _go_on(self, member: MemberId, step: int) -> None:
        """The member goes on from a gate in the memory of its worker."""
        until_step = next((gate for gate in self.gates if gate > step), None)
        if until_step is None:
            self._test(member)
            self._free(member)
            return
        self.busy -= 1
        self._start(member, until_step, in_memory=True)
        self._fill()

    def _test(self, member: MemberId) -> None:
        """A reading of the test split takes no time here and says nothing."""
        report = Tested(member, self._members[member].best_step, {}, 0.0)
        self._timed(lambda: self._tuner.on_report(report))

    def _free(self, member: MemberId) -> None:
        self.busy -= 1
        self._fill(member)

    def _fill(self, holding: MemberId | None = None) -> None:
        """Ask for every free worker, first for the worker that still has the member ``holding`` in memory."""
        while self.busy < self.conditions.workers:
            prefer = holding
            job = self._timed(lambda prefer=prefer: self._tuner.next_job(prefer))  # type: ignore[misc]
            if not isinstance(job, RunMember):
                self._finished = isinstance(job, Finish)
                return
            if job.purpose == "test":
                self._test(job.member)
                continue
            self._start(job.member, job.until_step, in_memory=job.member == holding)
            holding = None

    def _start(self, member: MemberId, until_step: int, *, in_memory: bool) -> None:
        sigma = self.conditions.stragglers
        factor = math.exp(self._random.gauss(0.0, sigma)) if sigma else 1.0
        config, replicate = self._side.place(member)
        state = self._members[member]
        ahead = _stretches(self.table.curves[config][replicate], self._grid, state.step, until_step, self._sign)
        self.busy += 1
        self._go(_Job(member, state, ahead[::-1], factor), 0.0 if in_memory else self.conditions.overhead_s)

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
        chosen = self._side.incumbent()
        regret = math.nan if chosen is None else float(self.table.truth[chosen]) - self._best
        self._points.extend((self.now, self.steps, regret, self.busy))


def eval_grid(table: Table, eval_every: int) -> NDArray[np.int64]:
    """The table's steps at which members report: the multiples of ``eval_every``."""
    return np.array([step for step in table.steps if step % eval_every == 0], dtype=np.int64)


def _stretches(
    curve: Curve, grid: NDArray[np.int64], from_step: int, until_step: int, sign: float = 1.0
) -> list[tuple[int, float, float]]:
    """What a member reports after ``from_step``: (step, minimised value, seconds since the report before).

    A curve that was lost before a step of the grid reports NaN there, and nothing after it. A curve that has no reading
    at a step of the grid raises a ValueError: `tune_rh.simulation.table_source.check` finds it before.
    """
    ahead = []
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
