"""The three kinds of plan: a search, a race and a comparison, each with the fields that only it has.

`kind_of` tells from the fields of a plan's file which of them it is. Not here: what a kind decides (its scheduler).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from analysis.stats.claims import Test, can_decide
from tune_rh.plan.earlier import Earlier
from tune_rh.plan.rules import GapRule, PlanTable, PositiveInt, SearchRules
from tune_rh.plan.schema import ConfigFields, Origin, Plan
from tune_rh.plan.stages import GateTerms, Scoring, learning

MIN_PAIRS, MAX_PAIRS = 5, 16
"""Seeds of a comparison: fewer make no claim, and a sign-flip test of more is slow to enumerate."""


class Budget(PlanTable):
    """Caps on what new candidates may start; what has started is finished, and gates still fill ``at_least``.

    Attributes:
        max_steps: optimiser steps, over all members.
        max_slot_hours: hours of all jobs together.
    """

    max_steps: PositiveInt | None = None
    max_slot_hours: Annotated[float, Field(gt=0)] | None = None


SAMPLERS = {
    "tpe": "tune_rh.decide.samplers:TpeSampler",
    "tpe-extrapolating": "tune_rh.decide.samplers:ExtrapolatingTpeSampler",
    "random": "tune_rh.decide.samplers:RandomSampler",
    "grid": "tune_rh.decide.samplers:GridSampler",
    "qmc": "tune_rh.decide.samplers:QmcSampler",
}


class Sampler(PlanTable):
    """How configs are drawn: Optuna's multivariate, grouped TPE with constant liar, or a plain design.

    Attributes:
        name: of `SAMPLERS`, or ``"module:attr"`` of a class of your own (`tune_rh.decide.samplers.Sampler`).
        seed: of the draws.
        startup: candidates drawn at random before TPE begins to model.
        grid_points: how many values a continuous parameter takes in a grid.
    """

    name: str = "tpe"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    startup: PositiveInt = 8
    grid_points: Annotated[int, Field(ge=2, le=1000)] = 3

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SAMPLERS and ":" not in name:
            *names, last = map(repr, SAMPLERS)
            raise ValueError(f"known: {', '.join(names)} or {last}; one of your own is 'module:attr'")
        return name


class FollowUp(PlanTable):
    """Candidates around the winner of a gate, beside ``num_candidates``: its config with some fields changed.

    Attributes:
        after: index of the stage at whose gate the winner is known, once no other candidate can arrive there or below.
        changes: config fields; each table is one candidate.
        enters: index of the stage that they are brought to whatever gates say below it, and ranked from.
    """

    after: Annotated[int, Field(ge=0)]
    changes: Annotated[tuple[Annotated[ConfigFields, Field(min_length=1)], ...], Field(min_length=1)]
    enters: Annotated[int, Field(ge=0)] = 0


class Compare(PlanTable):
    """A against B, paired by seed: the control is A, the one preset is B.

    Attributes:
        test: ``sign_flip`` and ``t`` claim once all seeds are in (and end early only when no claim can come any more);
            ``e_process`` may be looked at after every pair.
        alpha: chance of a false claim, both directions together.
        region: differences of at most this (objective's unit) are equivalent in practice; 0: never say equivalent.
        bisect: where B is worse and differs in several keys, find those that carry it.
        max_probes: how many configs between A and B may be run.
    """

    test: Test = "sign_flip"
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    region: Annotated[float, Field(ge=0)] = 0.01
    bisect: bool = False
    max_probes: PositiveInt = 24


class Search(Plan):
    """Candidates against a control, gate by gate.

    Attributes:
        space: what candidates are drawn from: one of the family's, or ``"module:attr"``.
        presets: configs that are tried before anything is drawn.
        references: configs that run to the end beside the control and are never ranked: no gate stops them, and they
            take no place.
        gates: ``promote`` as candidates arrive; ``stop``: who is below the cut on arrival never goes on; ``adaptive``:
            promote as candidates arrive, a share that each gate learns from the run.
        eta: a gate promotes the best 1 / eta.
        follow_ups: candidates around the winner of a gate.
        budget: caps on what may still start.
        sampler: how configs are drawn.
        scheduler: ``halving``; ``value``: what the final choice is expected to gain most from runs next; or
            ``"module:attr"`` of a class of your own (`tune_rh.decide.scheduler.Scheduler`).
        audit: so many of those that were cut at a gate, drawn at random, run to the end when all else is done: would
            one of them have won?
        earlier: what it takes along from earlier runs; ``--learn-from`` writes it.
    """

    kind: ClassVar[Literal["search"]] = "search"

    unit: Literal["candidate"] = "candidate"
    scheduler: str = "halving"
    space: str = ""
    presets: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    gates: Literal["promote", "stop", "adaptive"] = "promote"
    eta: Annotated[float, Field(gt=1)] = 3.0
    follow_ups: tuple[FollowUp, ...] = ()
    rules: SearchRules = SearchRules()
    budget: Budget = Budget()
    sampler: Sampler = Sampler()
    audit: Annotated[int, Field(ge=0)] = 0
    earlier: Earlier | None = None

    @property
    def named(self) -> tuple[tuple[str, Origin], ...]:
        """The control, then references, then presets."""
        references: tuple[tuple[str, Origin], ...] = tuple((name, "reference") for name in self.references)
        presets: tuple[tuple[str, Origin], ...] = tuple((name, "preset") for name in self.presets)
        return (*super().named, *references, *presets)

    @property
    def from_outside(self) -> tuple[str, ...]:
        """See `Plan`."""
        return (*super().from_outside, *(name for name in (self.space, self.sampler.name) if ":" in name))

    @property
    def num_configs(self) -> int:
        """See `Plan`; follow-ups included."""
        follow_ups = sum(len(table.changes) for table in self.follow_ups)
        return self.num_candidates + self.has_control + len(self.references) + follow_ups

    @property
    def gap(self) -> GapRule | None:
        return self.rules.gap

    def gate(self, stage: int) -> GateTerms:
        at = self.stages[stage]
        cuts = self.gates == "stop" and at.top is None
        terms = GateTerms(at.eta or self.eta, cuts, self.scoring, self.rules.promote)
        if stage == self.last_stage or self.gates != "adaptive":
            return terms
        etas = [one.eta or self.eta for one in self.stages[:-1]]
        starts = learning(self.stages, etas, self.num_candidates, self.budget.max_steps, stage)
        if self.earlier is not None:
            starts = self.earlier.prior(at, self.stages[stage + 1], starts)
        return replace(terms, learning=starts, for_seeds=self.stages[stage + 1].until_step == at.until_step)

    def _check_kind(self) -> None:
        self._check_follow_ups()
        if self.scheduler == "value":
            self._check_value()
        if self.gates == "adaptive":
            self._check_adaptive()
        if not self.space and self.num_candidates > len(self.presets):
            raise ValueError(
                f"num_candidates = {self.num_candidates}: {len(self.presets)} presets and no space to draw from"
            )
        if len({*self.presets} - {self.control}) > self.num_candidates:
            raise ValueError(
                f"num_candidates = {self.num_candidates}: {len(self.presets)} presets are among them: some never run"
            )
        if not self.num_candidates and not self.follow_ups:
            raise ValueError("num_candidates = 0: the control alone is no search")

    def _check_value(self) -> None:
        """What the value of information decides itself, or has no use for."""
        off = Scoring()
        allowed: list[tuple[str, Any, tuple[Any, ...]]] = [
            ("gates", self.gates, ("promote",)),
            ("follow_ups", self.follow_ups, ((),)),
            ("rules.promote", self.rules.promote, (None,)),
            ("scoring.objective", self.scoring.objective, ("mean",)),
            ("scoring.band", self.scoring.band, (off.band, 0.0)),
            ("scoring.extra_seeds", self.scoring.extra_seeds, (off.extra_seeds, 0.0)),
        ]
        for i, stage in enumerate(self.stages):
            allowed += [
                (f"stages[{i}].top", stage.top, (None,)),
                (f"stages[{i}].when_idle", stage.when_idle, (True,)),
            ]
        for name, value, values in allowed:
            if value not in values:
                raise ValueError(
                    f'{name} = {value!r}: scheduler = "value" decides by itself who goes on, to more steps and to more '
                    "seeds; leave it out (of a gate, eta, at_least and at_most count)"
                )

    def _check_adaptive(self) -> None:
        for i, stage in enumerate(self.stages):
            if stage.top is not None:
                raise ValueError(
                    f'stages[{i}].top = {stage.top}: gates = "adaptive" learn how many go on; give eta, at_least or '
                    'at_most, or gates = "promote"'
                )

    def _check_follow_ups(self) -> None:
        """What needs gates between candidates, and time to wait at a gate; and that references are no others."""
        names = (self.control, *self.presets, *self.references)
        for name in self.references:
            if names.count(name) > 1:
                raise ValueError(f"references: {name!r} is named more than once among control, presets and references")
        if self.follow_ups and self.gates == "stop":
            raise ValueError('follow_ups: gates = "stop" cuts on arrival, before a winner is known; let gates promote')
        before = 0
        for i, table in enumerate(self.follow_ups):
            where, after, enters = f"follow_ups[{i}]", table.after, table.enters
            if after >= self.last_stage:
                raise ValueError(f"{where}.after = {after}: stage {self.last_stage} is the last and has no gate")
            if enters > self.last_stage:
                raise ValueError(f"{where}.enters = {enters}: the last stage is {self.last_stage}")
            if after < before:
                raise ValueError(f"{where}.after = {after} is below {before}, the table before: they go gate by gate")
            taken = [k for k in range(enters, after) if self.stages[k].top is not None]
            if taken:
                raise ValueError(
                    f"{where}.enters = {enters}: gate {taken[0]} has taken its top before the winner of gate {after} "
                    f"is known; let them enter at {taken[-1] + 1} or above"
                )
            before = after


class Race(Plan):
    """Gates choose among the seeds of one config, the one that ``control`` names."""

    kind: ClassVar[Literal["race"]] = "race"
    members_compete: ClassVar[bool] = True

    unit: Literal["member"]
    scheduler: str = "race"

    @property
    def has_control(self) -> bool:
        """There is nothing beside the config that races."""
        return False

    @property
    def named(self) -> tuple[tuple[str, Origin], ...]:
        """The config that races."""
        return ((self.control, "preset"),)

    def gate(self, stage: int) -> GateTerms:
        """A member's score is its one value."""
        return GateTerms(math.inf, False, Scoring(band=0.0, extra_seeds=0.0))

    def _check_kind(self) -> None:
        if self.num_candidates:
            raise ValueError(f"num_candidates = {self.num_candidates}: a race has one config, `control`; say 0")
        racing = len(self.seeds)
        for i, stage in enumerate(self.stages):
            if stage.num_seeds != len(self.seeds):
                raise ValueError(
                    f"stages[{i}].num_seeds = {stage.num_seeds}: all {len(self.seeds)} seeds enter a race, and `top` "
                    "says how many go on"
                )
            if i < self.last_stage and stage.top is None:
                raise ValueError(f"stages[{i}].top: missing; say how many members go on")
            if stage.top is not None and stage.top > racing:
                raise ValueError(f"stages[{i}].top = {stage.top}: only {racing} members reach this gate")
            racing = stage.top or racing


class Comparison(Plan):
    """A against B, paired by seed: the control is A, the one preset is B.

    Attributes:
        presets: B alone.
        compare: which test decides, and what counts as equivalent.
    """

    kind: ClassVar[Literal["comparison"]] = "comparison"
    protects_control: ClassVar[bool] = False
    diagnoses_all: ClassVar[bool] = False

    unit: Literal["candidate"] = "candidate"
    scheduler: str = "comparison"
    presets: tuple[str, ...]
    compare: Compare

    @property
    def named(self) -> tuple[tuple[str, Origin], ...]:
        """A, then B."""
        return (*super().named, (self.presets[0], "preset"))

    def turn(self, candidate: int, seed: int) -> tuple[int, int]:
        """Seed by seed, so that pairs are soon whole."""
        return seed, candidate

    def _check_kind(self) -> None:
        if len(self.presets) != 1 or self.num_candidates != 1 or len(self.stages) != 1:
            raise ValueError("[compare]: needs one preset (B), num_candidates = 1 and one stage; the control is A")
        compare, num = self.compare, self.stages[0].num_seeds
        if num < MIN_PAIRS:
            raise ValueError(
                f"stages[0].num_seeds = {num}: a claim needs at least {MIN_PAIRS} seeds; with fewer, a clean sweep "
                f"has a chance of {2 * 0.5 ** (MIN_PAIRS - 1):.0%} or more of being luck"
            )
        if num > MAX_PAIRS:
            raise ValueError(f"stages[0].num_seeds = {num}: a comparison takes {MIN_PAIRS} to {MAX_PAIRS} seeds")
        if not can_decide(num, compare.test, compare.alpha):
            raise ValueError(
                f"compare.test = {compare.test!r}: {num} seeds cannot reach alpha = {compare.alpha} with it, whatever "
                "they show; take more seeds, or test = 'e_process'"
            )


def kind_of(fields: Mapping[str, Any]) -> type[Search] | type[Race] | type[Comparison]:
    """The kind of the plan with these ``fields``, which may be wrong."""
    if fields.get("compare") is not None:
        return Comparison
    return Race if fields.get("unit") == "member" else Search
