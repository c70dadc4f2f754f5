"""Stages, how seeds make a score at the gate of each, and what such a gate goes by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tune_rh.plan.rules import PlanTable, PositiveInt, PromoteRule


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
class GateTerms:
    """What a gate goes by.

    Attributes:
        eta: it promotes the best 1 / eta; infinite where it has no quota.
        cuts: whether an entry below the cut on arrival is out.
        scoring: how seeds make a score.
        promote: what promotes beside the quota.
    """

    eta: float
    cuts: bool
    scoring: Scoring
    promote: PromoteRule | None = None

    def quota(self, num: int, *, times: float = 1.0, up: bool = False) -> int:
        """``times`` the share of ``num`` entries that the gate promotes, as a whole number (``up``: the next above)."""
        share = times * num / self.eta
        return math.ceil(share) if up else math.floor(share)


def stage_steps(stages: Sequence[Stage], k: int) -> int:
    """Steps of a candidate on its way through stage ``k``: its seeds so far go on, further ones begin."""
    stage = stages[k]
    old_seeds, old_step = (stages[k - 1].num_seeds, stages[k - 1].until_step) if k else (0, 0)
    return old_seeds * (stage.until_step - old_step) + (stage.num_seeds - old_seeds) * stage.until_step
