"""Optuna's samplers and pruners, by ask, report, should_prune and tell."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from benchmarks.peers.trials import Draws, Peer
from tune_rh.simulation.clock import Table
from tune_rh.simulation.table_source import space


class Optuna(Peer):
    """An Optuna study by ask, report, should_prune and tell; trials end with their last value."""

    def __init__(self, table: Table, grace: int, until_step: int, seed: int, sampler: str, pruner: str) -> None:
        super().__init__(table, grace, until_step, seed)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        draws = {"TPE": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[sampler]
        self._sampler = OnTable(draws(seed=seed), table, self.draws)
        # Hyperband hashes the study's name to assign brackets.
        name = f"{table.name}-{seed}"
        stops = _pruner(pruner, grace, until_step)
        self.study = optuna.create_study(study_name=name, sampler=self._sampler, pruner=stops)
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
        last_step = max(self.study.get_trials(deepcopy=False)[trial.number].intermediate_values, default=0)
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


def _pruner(name: str, grace: int, until_step: int) -> optuna.pruners.BasePruner:
    """With Optuna's defaults, but no trial shorter than ``grace``."""
    match name:
        case "SHA":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=grace, reduction_factor=4)
        case "Hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=grace, max_resource=until_step, reduction_factor=3)
        case "median":
            return optuna.pruners.MedianPruner(n_warmup_steps=grace)
    raise ValueError(f"pruner {name!r}: known: SHA, Hyperband, median")


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
