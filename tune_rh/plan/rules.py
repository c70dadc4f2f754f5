"""The ``[rules]`` of a plan: what promotes beside the quota, what stops a member, what keeps a candidate from going on.

Data only, all off by default. Not here: what the rules say of a curve (`tune_rh.record.rules`), nor the quota of a gate
and the scores that it ranks by (`tune_rh.plan.schema`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from trainables.config import FrozenConfig

MAX_COUNT = 10**12
"""No count in a plan is anywhere near it: beyond it a slip of the finger is more likely."""
PositiveInt = Annotated[int, Field(ge=1, le=MAX_COUNT)]


class PlanTable(FrozenConfig):
    """A table of a plan: its numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class Healthier(PlanTable):
    """A candidate is healthier than the control if ``metric``, the mean over seeds of the last reports, is better.

    Exactly one of ``factor`` and ``margin`` is given.

    Attributes:
        metric: one that the family reports.
        factor: at least ``factor`` x control (from 1 on), or at most that (below 1).
        margin: at least control + ``margin`` (from 0 on), or at most that (below 0).
    """

    metric: str
    factor: Annotated[float, Field(gt=0)] | None = None
    margin: float | None = None

    @model_validator(mode="after")
    def _one(self) -> Healthier:
        if (self.factor is None) == (self.margin is None):
            raise ValueError(f"healthier in {self.metric!r} by what? Give either factor or margin")
        return self


class PromoteRule(PlanTable):
    """Promote beside the quota: better than the control by ``margin``, or as good and healthier.

    Attributes:
        margin: promotable if the score beats the control's at the same gate by this much (objective's unit).
        tolerance: promotable if the score is this close to the control's (or better) and one of ``healthier`` holds.
        healthier: ways of being healthier than the control at the same gate.
    """

    margin: Annotated[float, Field(ge=0)] = 0.05
    tolerance: Annotated[float, Field(ge=0)] | None = None
    healthier: tuple[Healthier, ...] = ()

    @model_validator(mode="after")
    def _pair(self) -> PromoteRule:
        if (self.tolerance is None) == bool(self.healthier):
            raise ValueError("tolerance and healthier belong together: give both or none")
        return self


class Improved(PlanTable):
    """A metric that has moved far enough over the window of the stop rule for its member to go on.

    Exactly one of ``rose_by`` and ``fell_by`` is given.

    Attributes:
        metric: one that the family reports.
        rose_by: it rose by at least this (metric's unit).
        fell_by: it fell by at least this share of what it was.
    """

    metric: str
    rose_by: Annotated[float, Field(gt=0)] | None = None
    fell_by: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Improved:
        if (self.rose_by is None) == (self.fell_by is None):
            raise ValueError(f"{self.metric!r} improved by what? Give either rose_by or fell_by")
        return self


class StopRule(PlanTable):
    """Stop a member inside a stage when it has gone flat; all conditions must hold (`tune_rh.record.rules.plateau`).

    Attributes:
        delta: the best value improved by less than this over the last ``window`` evaluations.
        slope: a fitted decline of the train loss below this, per 1,000 steps, counts as flat.
        slope_steps: the decline is fitted over the reports of so many steps (None: those of the window).
        window: number of evaluations looked back.
        unless: any of these keeps the member going.
    """

    delta: Annotated[float, Field(ge=0)] = 0.02
    slope: Annotated[float, Field(ge=0)] = 0.01
    slope_steps: PositiveInt | None = None
    window: Annotated[int, Field(ge=2, le=30)] = 3
    unless: tuple[Improved, ...] = ()


class HealthBound(PlanTable):
    """A candidate whose ``metric`` (mean over seeds) is out of bounds is never promoted.

    Attributes:
        metric: that is reported; NaN is out of bounds.
        at_least, at_most: the bounds, one or both.
        in_a_row: out of bounds only if the last so many reports all are.
        after_step: reports up to this step do not count.
        required: a report without the metric is out of bounds; otherwise it does not count.
        stops: a member that is out of bounds, judged by its own reports, stops at once inside its stage.
        id: of the rule of live health that it is.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    in_a_row: PositiveInt = 1
    after_step: Annotated[int, Field(ge=0)] = 0
    required: bool = True
    stops: bool = False
    id: str = ""

    @model_validator(mode="after")
    def _bounds(self) -> HealthBound:
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"{self.metric!r} has no bound; give at_least, at_most, or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"{self.metric!r}: at_least = {self.at_least} is above at_most = {self.at_most}")
        return self


class GapRule(PlanTable):
    """A candidate that is too far behind the control goes no further, whatever its rank.

    The gap is the mean of candidate minus control (minimised, best so far, at the same step) over the seeds that both
    still have. Without any such seed the rule says nothing.

    Attributes:
        first: widest gap at the first evaluation (objective's unit).
        widening: how much wider than there it may be at a gate.
    """

    first: Annotated[float, Field(ge=0)] = 0.1
    widening: Annotated[float, Field(ge=0)] = 0.01


LIVE_RULES = ("H01", "H02", "H03", "H04", "H05", "H06")


class LiveRules(PlanTable):
    """Live health: rules on every step and heartbeat of a member (`trainables.worker.health`), and bounds by their id.

    Attributes:
        beat_every: steps between heartbeats.
        stop: rules that stop a member with its next report; the others warn. A plan that does not say it leaves the
            bounds of its family as they are.
        off: rules that are not looked at.
    """

    beat_every: PositiveInt = 10
    stop: tuple[str, ...] = ("H01",)
    off: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _apart(self) -> LiveRules:
        both = [name for name in self.stop if name in self.off]
        if both and "stop" in self.model_fields_set:
            raise ValueError(f"{both[0]} is in stop and in off: a rule that is not looked at stops nothing")
        return self

    def bounds(self, own: tuple[HealthBound, ...], of_family: tuple[HealthBound, ...]) -> tuple[HealthBound, ...]:
        """The bounds of a plan (its own, or else its family's), without those that are off; each says if it stops."""
        keep_stops = bool(own) or "stop" not in self.model_fields_set
        return tuple(
            bound.model_copy(update={"stops": (keep_stops and bound.stops) or (bound.id in self.stop)})
            for bound in own or of_family
            if bound.id not in self.off
        )


class Rules(PlanTable):
    """What stops a member, and what keeps a candidate from going on; but for non-finite numbers all off by default.

    Attributes:
        stop: ends a member that has come to a plateau.
        patience_steps: ends a member without a new best for so many steps.
        health: bounds on metrics; a candidate outside of one is never promoted (none given: the family's).
        live: what is looked at while members train.
    """

    stop: StopRule | None = None
    patience_steps: PositiveInt | None = None
    health: tuple[HealthBound, ...] = ()
    live: LiveRules = LiveRules()


class SearchRules(Rules):
    """Rules about candidates beside a control, which only a search has.

    Attributes:
        promote: promotes beside the quota.
        gap: keeps a candidate that is too far behind the control from being promoted.
    """

    promote: PromoteRule | None = None
    gap: GapRule | None = None
