"""NePS by ask and tell: trials that pause at the end of a rung, and go on when the tool asks for them again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.peers.trials import Peer
from trainables.worker.report import Evaluated, MemberId, Report
from tune_rh.decide.scheduler import Finish, RunMember, Wait
from tune_rh.simulation.clock import Table


class Neps(Peer):
    """``algorithms.asha`` or ``algorithms.priorband`` behind NePS's own `AskAndTell`.

    NePS hears of a trial once it has come to the fidelity that was asked for: the first evaluation there. ``ASHA``
    draws configs as the other peers do; ``PriorBand`` draws its own where the table has parameters, and learns about
    the nearest config, which ran.

    As of 0.17.0 its ASHA leaves promoted configs out of a rung before it takes the best third of the rung, so that a
    rung keeps two configs at most and sends on all others. With several workers it sends on configs whose trial still
    runs as well: these have no checkpoint to go on from, and start again. It is driven as it is.
    """

    def __init__(self, table: Table, grace: int, until_step: int, seed: int, algorithm: str) -> None:
        import neps
        from neps.space import HPOInteger, SearchSpace

        super().__init__(table, grace, until_step, seed)
        logging.getLogger("neps").setLevel(logging.ERROR)
        space = SearchSpace({**_parameters(table), "steps": HPOInteger(grace, until_step, is_fidelity=True)})
        self._draws_itself = algorithm == "PriorBand" and bool(table.parameters)
        self._tool = neps.AskAndTell(
            neps.algorithms.priorband(space) if algorithm == "PriorBand" else neps.algorithms.asha(space)
        )
        self._random = _Random(seed)
        self._running: dict[MemberId, tuple[Any, int]] = {}
        self._members: dict[str, MemberId] = {}
        self._best: tuple[float, int] | None = None

    def next_job(self, prefer: MemberId | None = None) -> RunMember | Wait | Finish:
        """See `tune_rh.simulation.clock.Tuner`."""
        with self._random.used():
            trial = self._tool.ask()
        name, before = trial.metadata.id, trial.metadata.previous_trial_id
        number, _, rung = name.partition("_rung_")
        member = self._members.get(before)
        if before is None and self.draws.exhausted:
            del self._tool.trials[name]
            return Wait() if self._running else Finish()
        if before is None:
            self._take(trial)
        if member is None or member in self._running:
            member = MemberId(str(int(number) - 1), int(rung))
        until_step = next(step for step in self.table.steps if step >= trial.config["steps"])
        self._members[name], self._running[member] = member, (trial, until_step)
        return RunMember(member, 0, until_step)

    def on_report(self, report: Report) -> bool:
        """See `tune_rh.simulation.clock.Tuner`."""
        assert isinstance(report, Evaluated)
        _, until_step = self._running[report.member]
        if report.diverged:
            self._tell(report.member, RuntimeError("diverged"))
            return False
        value = self._sign * report.metrics[self.table.objective]
        self.last[report.member.candidate] = value, self.place(report.member)[0]
        if report.step < until_step:
            return True
        self._tell(report.member, value)
        return False

    def on_failure(self, member: MemberId, error: str) -> None:
        """See `tune_rh.simulation.clock.Tuner`."""
        self._tell(member, RuntimeError(error))

    def incumbent(self) -> int | None:
        """As its ``status``: the trial with the best result, whatever its length; before any, the best last result."""
        return super().incumbent() if self._best is None else self._best[1]

    def _take(self, trial: Any) -> None:
        """A config of the table for a new trial."""
        drawn = {name: trial.config[name] for name in self.table.parameters}
        config = self.draws.nearest(drawn) if self._draws_itself else self.draws.next()
        self._places.append((config, self.draws.take(config)))
        trial.config = {**trial.config, **self.table.configs[config]}

    def _tell(self, member: MemberId, result: float | RuntimeError) -> None:
        trial, _ = self._running.pop(member)
        self._tool.tell(trial, result)
        if isinstance(result, float) and (self._best is None or result < self._best[0]):
            self._best = result, self.place(member)[0]


class _Random:
    """NePS draws from the generators of numpy and torch that everybody shares: here it has states of its own."""

    def __init__(self, seed: int) -> None:
        import torch

        self._numpy = np.random.RandomState(seed).get_state()
        self._torch = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within, the shared generators go on from where they were when this was used last."""
        import torch

        numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        np.random.set_state(self._numpy)  # noqa: NPY002
        torch.set_rng_state(self._torch)
        try:
            yield
        finally:
            self._numpy, self._torch = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
            np.random.set_state(numpy_state)  # noqa: NPY002
            torch.set_rng_state(torch_state)


def _parameters(table: Table) -> dict[str, Any]:
    """The table's parameters in NePS's words; one that nothing hangs on where it has none."""
    from neps.space import HPOCategorical, HPOFloat, HPOInteger

    found: dict[str, Any] = {}
    for name, p in table.parameters.items():
        if p.kind == "categorical":
            found[name] = HPOCategorical(p.choices)
        elif p.kind == "int":
            found[name] = HPOInteger(int(p.low), int(p.high), log=p.log)
        else:
            found[name] = HPOFloat(p.low, p.high, log=p.log)
    return found or {"nothing": HPOFloat(0.0, 1.0)}
