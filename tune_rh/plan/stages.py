"""Stages, how seeds make a score at the gate of each, and what such a gate goes by."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tune_rh.plan.rules import PlanTable, PositiveInt, PromoteRule

_FORGETS = 0.35
"""Scores at a third of the steps correlate by 3^-0.35 = .68 with those at the end of them."""
_SEED_PRIOR = 0.8
"""And scores of few seeds with those of more."""


class Stage(PlanTable):
    """Train to ``until_step`` with the first ``num_seeds`` seeds; the gate at its end lets the best go on.

    A stage ends at a later step than the one before it, or at the same step with more seeds: then the members that are
    there already stay as they are, and only the further seeds are trained.

    Attributes:
        until_step: optimiser steps since the start of the member, not of the stage.
        num_seeds: how many of the plan's seeds a candidate needs at this stage.
        eta: the best 1 / eta of the candidates at the gate are promotable (None: the plan's).
        top: promote exactly the best ``top`` once all have arrived, instead of 1 / eta as they come.
        at_least: how many the gate promotes in any case, once no other can arrive; a candidate that is lost after
            it is replaced by the next best.
        at_most: how many it promotes at the most.
        when_idle: rather than stand idle, a slot may take the best up to the next whole number above 1 / eta. False
            where few candidates come to the gate, so that the first of them does not go on for having been quick.
    """

    until_step: PositiveInt
    num_seeds: PositiveInt
    eta: Annotated[float, Field(gt=1)] | None = None
    top: PositiveInt | None = None
    at_least: PositiveInt = 1
    at_most: PositiveInt | None = None
    when_idle: bool = True

    @model_validator(mode="after")
    def _bounds(self) -> Stage:
        if self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least = {self.at_least} is above at_most = {self.at_most}")
        if self.top is not None and self.eta is not None:
            raise ValueError("top and eta exclude each other: give one")
        return self

    @property
    def end(self) -> str:
        """``step 1800 with 2 seeds``."""
        return f"step {self.until_step} with {self.num_seeds} {'seed' if self.num_seeds == 1 else 'seeds'}"

    def follows(self, before: Stage) -> bool:
        """Whether this may be the stage after ``before``: it trains further, or as far with more seeds."""
        if self.until_step == before.until_step:
            return self.num_seeds > before.num_seeds
        return self.until_step > before.until_step


class Scoring(PlanTable):
    """How a candidate's seeds make its score at a gate, and what scores that are too close to tell may cost.

    Attributes:
        objective: ``mean`` over seeds, or ``best_of_k`` where only the best of several seeds will be used.
        k: how many seeds the best is taken of.
        success: a value as good as this is a success (objective's own sign). None: where the values at the gate fall
            into two groups, their dividing line; otherwise the expected best of ``k`` is the score.
        band: beside the quota, promote while the chance of being above the cut is at least this; 0 is off.
        band_quota: at most this many times the quota go on.
        extra_seeds: share of a gate's steps that may buy one more seed for those near the cut; 0 is off.
    """

    objective: Literal["mean", "best_of_k"] = "mean"
    k: PositiveInt = 3
    success: float | None = None
    band: Annotated[float, Field(ge=0, lt=0.5)] = 0.3
    band_quota: Annotated[float, Field(ge=1)] = 1.5
    extra_seeds: Annotated[float, Field(ge=0, le=1)] = 0.2

    @model_validator(mode="after")
    def _line(self) -> Scoring:
        if self.success is not None and self.objective != "best_of_k":
            raise ValueError(f'success = {self.success}: is of objective = "best_of_k"; a mean has no successes')
        return self


@dataclass(frozen=True)
class Learning:
    """What a gate that learns its share starts from; see `analysis.stats.agreement.LearnedShare`.

    Attributes:
        prior: correlation of scores between this gate and the next, before any candidate was seen at both.
        cost: expected steps of a candidate that goes on, over those of one more that comes to the gate.
        num: candidates that are expected to come to the gate.
        most: how many could come at the most.
        weight: candidates that the prior is worth.
        seed_variance, seed_df: of one seed, and the degrees of freedom that it rests on; 0 where nothing is known.
    """

    prior: float
    cost: float
    num: float
    most: float
    weight: float = 6.0
    seed_variance: float = 0.0
    seed_df: float = 0.0


@dataclass(frozen=True)
class GateTerms:
    """What a gate goes by.

    Attributes:
        eta: it promotes the best 1 / eta; infinite where it has no quota.
        cuts: whether an entry below the cut on arrival is out.
        scoring: how seeds make a score.
        promote: what promotes beside the quota.
        learning: of a gate whose share follows from what the run has seen; None: it stays 1 / eta.
        for_seeds: whether those that go on get further seeds, and no further steps.
    """

    eta: float
    cuts: bool
    scoring: Scoring
    promote: PromoteRule | None = None
    learning: Learning | None = None
    for_seeds: bool = False

    def quota(self, num: int, *, times: float = 1.0, up: bool = False, eta: float | None = None) -> int:
        """``times`` the share of ``num`` entries that the gate promotes, as a whole number (``up``: the next above).

        ``eta`` takes the place of the gate's own.
        """
        share = times * num / (eta or self.eta)
        return math.ceil(share) if up else math.floor(share)


def learning(stages: Sequence[Stage], etas: Sequence[float], num: int, max_steps: int | None, gate: int) -> Learning:
    """What the gate at the end of stage ``gate`` starts from, if each gate lets 1 / eta of its ``etas`` through.

    ``num`` candidates are to be had, and with ``max_steps`` as many are drawn as that pays for.
    """
    steps, reach = _steps_of_a_draw(stages, etas), _reach(etas)
    arrival, further = sum(steps[: gate + 1]) / reach[gate], sum(steps[gate + 1 :])
    drawn = float(num) if max_steps is None else min(float(num), max_steps / sum(steps))
    here, there = stages[gate], stages[gate + 1]
    prior = (here.until_step / there.until_step) ** _FORGETS if there.until_step > here.until_step else _SEED_PRIOR
    most = math.inf if max_steps is None else max(1.0, num * reach[gate])
    return Learning(prior, further / reach[gate + 1] / arrival, max(1.0, drawn * reach[gate]), most)


def paid_for(stages: Sequence[Stage], eta: float, max_steps: int) -> int:
    """How many candidates ``max_steps`` pay for where each gate lets 1 / eta through; at least 1."""
    return max(1, math.ceil(max_steps / sum(_steps_of_a_draw(stages, [eta] * (len(stages) - 1)))))


def _steps_of_a_draw(stages: Sequence[Stage], etas: Sequence[float]) -> list[float]:
    """Expected steps of a drawn candidate in each stage."""
    return [stage_steps(stages, k) * passes for k, passes in enumerate(_reach(etas))]


def _reach(etas: Sequence[float]) -> list[float]:
    """How likely a drawn candidate is to enter each stage."""
    return list(accumulate(etas, operator.truediv, initial=1.0))


def stage_steps(stages: Sequence[Stage], k: int) -> int:
    """Steps of a candidate on its way through stage ``k``: its seeds so far go on, further ones begin."""
    stage = stages[k]
    old_seeds, old_step = (stages[k - 1].num_seeds, stages[k - 1].until_step) if k else (0, 0)
    return old_seeds * (stage.until_step - old_step) + (stage.num_seeds - old_seeds) * stage.until_step
