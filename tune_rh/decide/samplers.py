"""Where new configs come from: Optuna's samplers, over the history as it is now.

Each draw looks at a view of the run in Optuna's terms, made from the history: a candidate that waits at a gate, or
has gone on, counts with its newest gate score at that step (PRUNED), a finished one is COMPLETE, one on its way to
its first gate is RUNNING (the constant liar), one that lost all seeds is FAIL. So a draw is a function of the
journal and of the plan's seed. `tune_rh.watch.study` keeps the run's own study file for dashboards and analysis; why
the two are apart is in ``docs/decisions/0002``.
"""

from __future__ import annotations

import math
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.api import OutsideSpace, Space, Trial, Unsatisfiable
from trainables.spelling import meant
from tune_rh.decide.extrapolation import Extrapolation
from tune_rh.plan import kinds
from tune_rh.plan.named import named_class
from tune_rh.plan.schema import Plan
from tune_rh.record.failure import headline
from tune_rh.record.history import History
from tune_rh.record.members import Candidate

MAX_DRAWS = 100


@dataclass(frozen=True)
class Draw:
    """One draw from a space: the config fields, and Optuna's record of how they were drawn."""

    config: Mapping[str, Any]
    params: Mapping[str, Any]
    distributions: Mapping[str, str]


class RefusedDraw(Exception):
    """A draw that gives no valid config, and why, in one line."""


class Sampler(Protocol):
    """Draws configs; made with the plan's ``[sampler]``. A draw is a function of its arguments and of that seed."""

    def draw(self, space: Space, history: History, attempt: int = 0) -> Draw:
        """Draw one config; ``attempt`` draws at this history were refused because their configs are known already."""
        ...


def sampler_of(settings: kinds.Sampler) -> Sampler:
    """The sampler that a plan names; raises `PlanError` if there is none."""
    sampler: Sampler = named_class("sampler.name", settings.name, kinds.SAMPLERS, ("draw",))(settings)
    return sampler


class _OptunaSampler(ABC):
    """One of Optuna's, made anew for each draw and seeded by its number: a resume needs no state of it."""

    def __init__(self, settings: kinds.Sampler) -> None:
        self.settings = settings

    def draw(self, space: Space, history: History, attempt: int = 0) -> Draw:
        study = self._study(history.num_sampled + 7919 * attempt)
        study.add_trials([*_observed(history.plan), *self._trials(history)])
        return _ask(study, space)

    def _trials(self, history: History) -> list[FrozenTrial]:
        """What is known of candidates, in Optuna's terms."""
        trials = (as_trial(candidate, history) for candidate in history.candidates.values())
        return [trial for trial in trials if trial is not None]

    def _study(self, number: int) -> optuna.Study:
        """An empty study for draw ``number``."""
        seed = (self.settings.seed * 1_000_003 + number) % 2**32
        with warnings.catch_warnings():
            # Optuna marks grouped, multivariate TPE as experimental at each construction.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _empty_study(self._make(seed))

    @abstractmethod
    def _make(self, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler with that seed."""


class TpeSampler(_OptunaSampler):
    """Multivariate, grouped TPE with constant liar."""

    def _make(self, seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self.settings.startup, multivariate=True, group=True, constant_liar=True
        )


class ExtrapolatingTpeSampler(TpeSampler):
    """TPE on what readings so far say of the end of each candidate (`tune_rh.decide.extrapolation`).

    So it learns from all gates on one scale. Plain TPE puts what has come further before everything else.
    """

    def _trials(self, history: History) -> list[FrozenTrial]:
        known = Extrapolation(history)
        trials = (as_ended_trial(candidate, history, known) for candidate in history.candidates.values())
        return [trial for trial in trials if trial is not None]


class RandomSampler(_OptunaSampler):
    """Each parameter on its own, whatever is known."""

    def _make(self, seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.RandomSampler(seed=seed)


class GridSampler(_OptunaSampler):
    """Every point of a grid once."""

    def draw(self, space: Space, history: History, attempt: int = 0) -> Draw:

        def on_grid(trial: Trial) -> dict[str, Any]:
            return space.suggest(_GridTrial(trial, self.settings.grid_points))

        return super().draw(replace(space, suggest=on_grid), history, attempt)

    def _make(self, seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.BruteForceSampler(seed=seed)


class QmcSampler(_OptunaSampler):
    """A scrambled low-discrepancy sequence; the number of the draw is its place in it."""

    def draw(self, space: Space, history: History, attempt: int = 0) -> Draw:
        study = self._study(0)
        drawn: Draw | RefusedDraw = RefusedDraw("nothing was drawn")
        for number in range(history.num_sampled + attempt + 1):
            try:
                drawn = _ask(study, space)
            except RefusedDraw as error:
                drawn = error
            if number == 0:
                # The sequence begins once one finished trial has shown the space; its position is the number of asks.
                study.tell(0, 0.0)
        if not isinstance(drawn, Draw):
            raise drawn
        return drawn

    def _make(self, seed: int) -> optuna.samplers.BaseSampler:
        # The same sequence for every draw.
        return optuna.samplers.QMCSampler(seed=self.settings.seed, scramble=True, warn_independent_sampling=False)


def guarded(space: Space) -> Space:
    """``space``, whose ``suggest`` raises `RefusedDraw` for what fails in it: an answer that leads into a rare branch
    must not end a search.
    """

    def suggest(trial: Trial) -> dict[str, Any]:
        try:
            return space.suggest(trial)
        except OutsideSpace:
            raise
        except Unsatisfiable as error:
            raise RefusedDraw(str(error)) from error
        except Exception as error:
            raise RefusedDraw(headline(traceback.format_exc())) from error

    return replace(space, suggest=suggest)


def inside(settings: kinds.Sampler, space: Space, config: Mapping[str, Any]) -> Draw | None:
    """How ``config`` would have been drawn from ``space``; None if it lies outside (or off a grid)."""
    try:
        _, params = space.replay(config)
    except OutsideSpace:
        return None
    if settings.name == "grid":
        return None
    study = _empty_study(optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(params)
    return _ask(study, space)


def as_trial(candidate: Candidate, history: History) -> FrozenTrial | None:
    """A candidate in Optuna's terms, or None for a preset outside of the space."""
    added = candidate.added
    if not added.params:
        return None
    params = meant(added.params)
    distributions = parse_distributions(added.distributions)
    values = intermediate_values(candidate, history)
    last = history.plan.stages[-1].until_step
    state, value = TrialState.RUNNING, None
    # Lost first: a candidate without a living seed is scored at the last gate only where others have shown a value.
    if all(m.lost for m in candidate.members.values()):
        state = TrialState.FAIL
    elif last in values:
        state, value = TrialState.COMPLETE, values[last]
    elif values:
        state = TrialState.PRUNED
    return create_trial(
        state=state, value=value, params=params, distributions=distributions, intermediate_values=values
    )


def _observed(plan: Plan) -> Iterator[FrozenTrial]:
    """What earlier runs have observed, as trials that are complete."""
    earlier = plan.earlier if isinstance(plan, kinds.Search) else None
    for seen in () if earlier is None else earlier.observations:
        distributions = parse_distributions(seen.distributions)
        yield create_trial(
            state=TrialState.COMPLETE, value=seen.score, params=meant(seen.params), distributions=distributions
        )


def as_ended_trial(candidate: Candidate, history: History, known: Extrapolation) -> FrozenTrial | None:
    """As `as_trial`; one that was read at a gate as if it had ended with what is expected of it."""
    trial = as_trial(candidate, history)
    if trial is None or known.chain is None or trial.state not in (TrialState.PRUNED, TrialState.COMPLETE):
        return trial
    estimate = known.of(history, candidate)
    assert estimate is not None
    return create_trial(
        state=TrialState.COMPLETE, value=estimate.mean, params=trial.params, distributions=trial.distributions
    )


def intermediate_values(candidate: Candidate, history: History) -> dict[int, float]:
    """Step -> score over seeds (minimised) at each gate that the candidate has reached."""
    values = {}
    for stage, gate in zip(history.plan.stages, history.gates, strict=True):
        if gate.has(candidate.index) and math.isfinite(gate.score(candidate.index)):
            values[stage.until_step] = gate.score(candidate.index)
    return values


def parse_distributions(distributions: Mapping[str, str]) -> dict[str, BaseDistribution]:
    """Optuna's distributions from their JSON."""
    return {name: json_to_distribution(text) for name, text in distributions.items()}


def _empty_study(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it tells of each
    return optuna.create_study(sampler=sampler, direction="minimize")


def _ask(study: optuna.Study, space: Space) -> Draw:
    trial = study.ask()
    config = space.suggest(trial)
    distributions = {name: distribution_to_json(d) for name, d in trial.distributions.items()}
    return Draw(config, dict(trial.params), distributions)


class _GridTrial:
    """A trial whose continuous parameters take ``points`` values, evenly spaced (in log where the range is)."""

    def __init__(self, trial: Trial, points: int) -> None:
        self._trial = trial
        self._points = points

    def suggest_float(
        self, name: str, low: float, high: float, *, log: bool = False, step: float | None = None
    ) -> float:
        """One of the grid's values."""
        if step is not None:
            return self._trial.suggest_float(name, low, high, step=step)
        a, b = (math.log(low), math.log(high)) if log else (low, high)
        grid = [a + (b - a) * i / (self._points - 1) for i in range(self._points)]
        # The ends as they are given: exp(log(x)) is not always x.
        values = [low, *(math.exp(x) if log else x for x in grid[1:-1]), high]
        return float(self._trial.suggest_categorical(name, values))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False, step: int = 1) -> int:
        """Any value of the range."""
        return self._trial.suggest_int(name, low, high, log=log, step=step)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Any choice."""
        return self._trial.suggest_categorical(name, choices)
