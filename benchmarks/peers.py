"""Other people's tuners, driven by the clock of `tune_rh.simulation.clock` without their clusters.

Each is the library itself: its scheduler or study is told of trials and results as its own event loop would tell it,
and its decisions are obeyed. All see the same table, workers, budget and evaluations as the policy of this project; a
trial follows one replicate of its config, drawn by seed. Where a tool has tried every config, its user would run other
seeds: it goes on with a second trial of each, with another replicate, and so on. Settings are the libraries' defaults
except where a line below says so; `SETTINGS` is printed beside every result.

What it is not: a comparison of run times, or of what the libraries do on a cluster.
"""

from __future__ import annotations

import logging
import math
import random
from collections import defaultdict
from collections.abc import Mapping
from importlib.util import find_spec
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from trainables.worker.report import Evaluated, MemberId, Report
from tune_rh.decide.scheduler import Finish, RunMember
from tune_rh.simulation.clock import Table
from tune_rh.simulation.table_source import space

SETTINGS = {
    "random search": "full length, one seed a trial; takes the best mean over the trials of a config",
    "Ray Tune ASHA": "AsyncHyperBandScheduler, reduction_factor 4, random configs; takes the best last result",
    "Optuna TPE + Hyperband": "TPESampler and HyperbandPruner, reduction_factor 3; takes study.best_trial",
    "Optuna TPE + SHA": "TPESampler and SuccessiveHalvingPruner, reduction_factor 4; takes study.best_trial",
    "Syne Tune ASHA": "baselines.ASHA, reduction_factor 3, random configs; takes the best of all results",
}


def available() -> list[str]:
    """The peers that are installed, in the order of `SETTINGS`."""
    return [name for name in SETTINGS if name != "Syne Tune ASHA" or find_spec("syne_tune") is not None]


def make(name: str, table: Table, grace: int, until_step: int, seed: int = 0) -> Peer:
    """A peer by its name in `SETTINGS`.

    Args:
        name: one of `available`.
        table: the curves.
        grace: steps that every trial gets at least (the first stage of a plan).
        until_step: length of a full trial.
        seed: of the order of configs, of replicates and of the library's own draws.

    Raises:
        ValueError: there is no peer of that name.
    """
    match name:
        case "random search":
            return RandomSearch(table, grace, until_step, seed)
        case "Ray Tune ASHA":
            return RayAsha(table, grace, until_step, seed)
        case "Optuna TPE + Hyperband":
            pruner: Any = optuna.pruners.HyperbandPruner(
                min_resource=grace, max_resource=until_step, reduction_factor=3
            )
            return Optuna(table, grace, until_step, seed, pruner)
        case "Optuna TPE + SHA":
            pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=grace, reduction_factor=4)
            return Optuna(table, grace, until_step, seed, pruner)
        case "Syne Tune ASHA":
            return SyneAsha(table, grace, until_step, seed)
    raise ValueError(f"peer {name!r}: known: {', '.join(SETTINGS)}")


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

    def next_job(self, prefer: MemberId | None = None) -> RunMember | Finish:
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


class Optuna(Peer):
    """An Optuna study by ask, report, should_prune and tell; trials end with their last value."""

    def __init__(self, table: Table, grace: int, until_step: int, seed: int, pruner: optuna.pruners.BasePruner) -> None:
        super().__init__(table, grace, until_step, seed)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._sampler = OnTable(optuna.samplers.TPESampler(seed=seed), table, self.draws)
        # Hyperband hashes the study's name to assign brackets.
        self.study = optuna.create_study(study_name=f"{table.name}-{seed}", sampler=self._sampler, pruner=pruner)
        self._trials: dict[str, optuna.Trial] = {}
        self._configs: list[int] = []

    def begin(self, key: str) -> int:
        """See `Peer`."""
        trial = self._trials[key] = self.study.ask()
        if self.table.parameters:
            space(self.table).suggest(trial)
            config = self._sampler.chosen
        else:
            config = self.draws.next()
        self._configs.append(config)
        return config

    def decide(self, key: str, step: int, value: float) -> bool:
        """See `Peer`."""
        self._trials[key].report(value, step)
        return step >= self.until_step or not self._trials[key].should_prune()

    def close(self, key: str) -> None:
        """See `Peer`."""
        trial = self._trials.pop(key)
        last_step = max(self.study.trials[trial.number].intermediate_values, default=0)
        if key not in self.last:
            self.study.tell(trial, state=TrialState.FAIL)
        elif last_step < self.until_step:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, self.last[key][0])

    def incumbent(self) -> int | None:
        """``study.best_trial``; before any trial is complete, the best last result."""
        done = [t for t in self.study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
        if not done:
            return super().incumbent()
        return self._configs[min(done, key=lambda t: (t.value, t.number)).number]


class OnTable(optuna.samplers.BaseSampler):
    """A sampler whose draws are moved to the nearest config of a table, so that it learns about what ran."""

    def __init__(self, sampler: optuna.samplers.BaseSampler, table: Table, draws: Draws) -> None:
        self.chosen = -1
        self._sampler, self._table, self._draws = sampler, table, draws

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        """All parameters of the table."""
        found: dict[str, BaseDistribution] = {}
        for name, p in self._table.parameters.items():
            if p.kind == "categorical":
                found[name] = CategoricalDistribution(p.choices)
            elif p.kind == "int":
                found[name] = IntDistribution(int(p.low), int(p.high), log=p.log)
            else:
                found[name] = FloatDistribution(p.low, p.high, log=p.log)
        return found

    def sample_relative(self, study: Any, trial: Any, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """What the sampler draws, parameter by parameter where it does not draw jointly, and then the nearest."""
        joint = self._sampler.infer_relative_search_space(study, trial)
        drawn = dict(self._sampler.sample_relative(study, trial, joint))
        for name, distribution in search_space.items():
            if name not in drawn:
                drawn[name] = self._sampler.sample_independent(study, trial, name, distribution)
        self.chosen = self._draws.nearest(drawn)
        return dict(self._table.configs[self.chosen])

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """Never asked: every parameter is drawn jointly."""
        raise AssertionError(f"{param_name} is not a parameter of {self._table.name}")

    def before_trial(self, study: Any, trial: Any) -> None:
        """See Optuna."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        """See Optuna."""
        self._sampler.after_trial(study, trial, state, values)
