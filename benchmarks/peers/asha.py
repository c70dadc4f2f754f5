"""Ray Tune's and Syne Tune's asynchronous halving, each told of trials and results as its own loop would tell it."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

from benchmarks.peers.trials import Peer
from tune_rh.simulation.clock import Table


class RayAsha(Peer):
    """Ray Tune's `AsyncHyperBandScheduler`; `ResultGrid.get_best_result` (scope ``last``) chooses."""

    def __init__(self, table: Table, grace: int, until_step: int, seed: int) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

        super().__init__(table, grace, until_step, seed)
        self._stop = TrialScheduler.STOP
        self._scheduler = AsyncHyperBandScheduler(
            time_attr="step", metric="value", mode="min", max_t=until_step, grace_period=grace
        )
        self._trials: dict[str, Any] = {}

    def begin(self, key: str) -> int:
        """See `Peer`."""
        self._trials[key] = SimpleNamespace(trial_id=key)
        self._scheduler.on_trial_add(None, self._trials[key])
        return super().begin(key)

    def decide(self, key: str, step: int, value: float) -> bool:
        """See `Peer`."""
        said = self._scheduler.on_trial_result(None, self._trials[key], {"step": step, "value": value})
        return bool(said != self._stop)

    def close(self, key: str) -> None:
        """See `Peer`."""
        self._scheduler.on_trial_remove(None, self._trials.pop(key))


class SyneAsha(Peer):
    """Syne Tune's ASHA: version 0.16 has the stopping variant alone. Configs are drawn as for the others."""

    def __init__(self, table: Table, grace: int, until_step: int, seed: int) -> None:
        from syne_tune.config_space import randint
        from syne_tune.optimizer.baselines import ASHA
        from syne_tune.optimizer.scheduler import SchedulerDecision

        super().__init__(table, grace, until_step, seed)
        logging.getLogger("syne_tune").setLevel(logging.ERROR)
        self._best: dict[str, float] = {}
        self._continue = SchedulerDecision.CONTINUE
        self._scheduler = ASHA(
            {"trial": randint(0, 10**6)},
            metric="value",
            time_attr="step",
            max_t=until_step,
            grace_period=grace,
            random_seed=seed,
        )
        self._trials: dict[str, Any] = {}

    def begin(self, key: str) -> int:
        """See `Peer`."""
        self._trials[key] = SimpleNamespace(trial_id=int(key), config={"trial": int(key)})
        self._scheduler.on_trial_add(self._trials[key])
        return super().begin(key)

    def decide(self, key: str, step: int, value: float) -> bool:
        """See `Peer`."""
        self._best[key] = min(value, self._best.get(key, math.inf))
        said = self._scheduler.on_trial_result(self._trials[key], {"step": step, "value": value})
        return bool(said == self._continue)

    def close(self, key: str) -> None:
        """See `Peer`."""
        self._scheduler.on_trial_remove(self._trials.pop(key))

    def incumbent(self) -> int | None:
        """As its ``best_config``: the trial with the best result at any time."""
        return min((self._best[key], config) for key, (_, config) in self.last.items())[1] if self.last else None
