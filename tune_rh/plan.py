"""The plan of a search: what to try, how far, with how many seeds, and on what. Frozen, validated, fingerprinted.

Reading a plan imports pydantic and nothing heavier; presets and the family's objective are data. Whether the drawn
configs are valid is checked in `tune_rh.preflight`, because that needs the family's config class.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from analysis.stats.claims import Test, can_decide
from trainables.config import FrozenConfig, canonical_digest
from tune_rh.plan_rules import PositiveInt, Rules

MIN_PAIRS, MAX_PAIRS = 5, 16
"""Seeds of a comparison: fewer make no claim, and a sign-flip test of more is slow to enumerate."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]


class Stage(FrozenConfig):
    """Train to ``until_step`` with the first ``num_seeds`` seeds; the gate at its end lets the best go on.

    Attributes:
        until_step: optimiser steps since the start of the member, not of the stage.
        num_seeds: how many of the plan's seeds a candidate needs at this stage.
        eta: the best 1 / eta of the candidates at the gate are promotable (None: the plan's).
        top: promote exactly the best ``top`` once everybody has arrived, instead of 1 / eta as they come.
        at_least: how many the gate promotes in any case, once nobody else can arrive; whoever is lost after it is
            replaced by the next best.
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


class Budget(FrozenConfig):
    """Caps on what new candidates may start; what has started is finished, and gates still fill ``at_least``."""

    max_steps: PositiveInt | None = None
    max_slot_hours: Annotated[float, Field(gt=0)] | None = None


class Sampler(FrozenConfig):
    """How configs are drawn: Optuna's multivariate, grouped TPE with constant liar, or a plain design.

    Attributes:
        startup: candidates drawn at random before TPE begins to model.
        grid_points: how many values a continuous parameter takes in a grid.
    """

    name: Literal["tpe", "random", "grid", "qmc"] = "tpe"
    seed: Annotated[int, Field(ge=0)] = 0
    startup: PositiveInt = 8
    grid_points: Annotated[int, Field(ge=2)] = 3


class Resources(FrozenConfig):
    """What one job gets. Not part of the fingerprint: a run may be resumed on other hardware.

    Attributes:
        cpu: cores of a job, and its number of torch threads.
        gpu: GPUs of a job; a fraction up to 0.5, or a whole number.
        slots: jobs at a time (None: as many as the machine or cluster has room for).
        max_failures: how often a job is tried again from its last checkpoint after an exception or a lost worker.
        price_per_hour: of a GPU (of a slot, without GPUs), in your currency; for the ledger of the report.
    """

    cpu: PositiveInt = 1
    gpu: Annotated[float, Field(ge=0)] = 0.0
    slots: PositiveInt | None = None
    max_failures: Annotated[int, Field(ge=0)] = 2
    price_per_hour: Annotated[float, Field(ge=0)] | None = None

    @field_validator("gpu")
    @classmethod
    def _gpu_fraction(cls, gpu: float) -> float:
        if 0.5 < gpu < 1 or (gpu > 1 and gpu != int(gpu)):
            raise ValueError("a fraction above one half never shares a GPU: give 0, up to 0.5, or a whole number")
        return gpu


class Variant(FrozenConfig):
    """A config of the plan's own, named in ``[configs]``: a preset of the family with some fields changed.

    Attributes:
        preset: what it is made from; None: the family's defaults.
        fields: config fields that differ from the preset.
        patience_steps: a patience of its own, in place of the plan's.
    """

    preset: str | None = None
    fields: dict[str, Any] = Field(default_factory=dict)
    patience_steps: PositiveInt | None = None


class Scoring(FrozenConfig):
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


class FollowUp(FrozenConfig):
    """Candidates around the winner of a gate, beside ``num_candidates``: its config with some fields changed.

    Attributes:
        after: index of the stage at whose gate the winner is known, once nobody else can arrive there or below.
        changes: config fields; each table is one candidate.
        enters: index of the stage that they are brought to whatever gates say below it; from its gate on they compete.
    """

    after: Annotated[int, Field(ge=0)]
    changes: Annotated[tuple[Annotated[dict[str, Any], Field(min_length=1)], ...], Field(min_length=1)]
    enters: Annotated[int, Field(ge=0)] = 0


class Compare(FrozenConfig):
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


class SearchPlan(FrozenConfig):
    """One search, race or comparison, as its file says; see ``docs/plan.md`` for every key with an example.

    ``diagnose`` names the diagnostics that look at members which reach the last stage (None: all of the family's), and
    ``require`` those that a candidate must not fail to be exported as the best. ``audit`` many of those that were cut
    at a gate, drawn at random, run to the end when all else is done: would one of them have won?

    ``references`` are configs that run to the end beside the control and never compete: no gate stops them, and they
    take nobody's place.

    ``scheduler`` is one by name or ``"module:attr"`` (`tune_rh.scheduler`); empty: that of the kind of plan.

    With ``unit = "member"`` it is a race: gates choose among the seeds of one config, the one that ``control`` names.
    With ``[compare]`` it is a comparison of the control with the one preset.
    """

    schema_version: Literal[1] = 1
    name: Name
    family: str
    space: str = ""
    control: str
    presets: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    configs: dict[str, Variant] = Field(default_factory=dict)
    fixed: dict[str, Any] = Field(default_factory=dict)
    num_candidates: Annotated[int, Field(ge=0)]
    unit: Literal["candidate", "member"] = "candidate"
    gates: Literal["promote", "stop"] = "promote"
    eta: Annotated[float, Field(gt=1)] = 3.0
    seeds: tuple[Annotated[int, Field(ge=0)], ...]
    eval_every: PositiveInt
    save_every: PositiveInt | None = None
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    follow_ups: tuple[FollowUp, ...] = ()
    scoring: Scoring = Scoring()
    compare: Compare | None = None
    rules: Rules = Rules()
    budget: Budget = Budget()
    sampler: Sampler = Sampler()
    scheduler: str = ""
    resources: Resources = Resources()
    diagnose: tuple[str, ...] | None = None
    require: tuple[str, ...] = ()
    audit: Annotated[int, Field(ge=0)] = 0
    objective: str = ""
    mode: Literal["min", "max"] = "min"

    @model_validator(mode="after")
    def _check(self) -> SearchPlan:
        if len(set(self.seeds)) != len(self.seeds):
            repeated = sorted({s for s in self.seeds if self.seeds.count(s) > 1})
            raise ValueError(f"seeds: {repeated} repeated; each seed may stand once")
        self._check_stages()
        steps = {"save_every": self.save_every, "patience_steps": self.rules.patience_steps}
        steps |= {f"configs.{name}.patience_steps": variant.patience_steps for name, variant in self.configs.items()}
        for field, value in steps.items():
            if value is not None and value % self.eval_every:
                raise ValueError(f"{field} = {value} is not a multiple of eval_every = {self.eval_every}")
        fitted = self.rules.stop.slope_steps if self.rules.stop else None
        if fitted is not None and fitted < 2 * self.eval_every:
            raise ValueError(
                f"rules.stop.slope_steps = {fitted}: a line needs three reports, and they are {self.eval_every} steps "
                f"apart; at least {2 * self.eval_every}"
            )
        self._check_beside()
        if self.unit == "member":
            self._check_race()
        elif self.compare is not None:
            self._check_comparison(self.compare)
        elif not self.space and self.num_candidates > len(self.presets):
            raise ValueError(
                f"num_candidates = {self.num_candidates}: {len(self.presets)} presets and no space to draw from"
            )
        elif len({*self.presets} - {self.control}) > self.num_candidates:
            raise ValueError(
                f"num_candidates = {self.num_candidates}: {len(self.presets)} presets are among them: some never run"
            )
        elif not self.num_candidates and not self.follow_ups:
            raise ValueError("num_candidates = 0: the control alone is no search")
        return self

    def _check_beside(self) -> None:
        """What needs candidates beside a control, gates between them, and time to wait at a gate."""
        is_search = self.unit == "candidate" and self.compare is None
        needs: dict[str, object] = {"rules.gap": self.rules.gap, "rules.promote": self.rules.promote}
        needs |= {"references": self.references, "follow_ups": self.follow_ups}
        wrong = [name for name, value in needs.items() if value]
        if wrong and not is_search:
            raise ValueError(f"{wrong[0]}: is about candidates beside a control; a race or a comparison has none")
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

    def _check_race(self) -> None:
        if self.presets or self.num_candidates or self.compare or self.audit:
            raise ValueError(
                'unit = "member": a race has one config, `control`; no presets, candidates, audit, comparison'
            )
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

    def _check_comparison(self, compare: Compare) -> None:
        if len(self.presets) != 1 or self.num_candidates != 1 or len(self.stages) != 1 or self.audit:
            raise ValueError(
                "[compare]: needs one preset (B), num_candidates = 1, one stage, no audit; the control is A"
            )
        num = self.stages[0].num_seeds
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

    def _check_stages(self) -> None:
        previous: Stage | None = None
        for i, stage in enumerate(self.stages):
            where = f"stages[{i}]"
            if stage.until_step % self.eval_every:
                raise ValueError(
                    f"{where}.until_step = {stage.until_step} is not a multiple of eval_every = {self.eval_every}"
                )
            if stage.num_seeds > len(self.seeds):
                raise ValueError(f"{where}.num_seeds = {stage.num_seeds}, but the plan has {len(self.seeds)} seeds")
            if previous and stage.until_step <= previous.until_step:
                raise ValueError(
                    f"{where}.until_step = {stage.until_step} must be above {previous.until_step}, the stage before"
                )
            if previous and stage.num_seeds < previous.num_seeds:
                raise ValueError(
                    f"{where}.num_seeds = {stage.num_seeds} is below {previous.num_seeds}, the stage before: "
                    "a promoted candidate keeps its seeds"
                )
            previous = stage
        last = self.stages[-1]
        if last.top or last.at_most or last.eta or last.at_least > 1 or not last.when_idle:
            raise ValueError(
                f"stages[{self.last_stage}]: the last stage has no gate; remove top, at_least, at_most, eta, when_idle"
            )

    @property
    def scheduler_name(self) -> str:
        """The scheduler that was given, or that of this kind of plan."""
        kind = "race" if self.unit == "member" else "halving" if self.compare is None else "comparison"
        return self.scheduler or kind

    @property
    def last_stage(self) -> int:
        """Index of the last stage."""
        return len(self.stages) - 1

    @property
    def has_control(self) -> bool:
        """Whether the first candidate is a reference that the gates leave alone."""
        return self.unit == "candidate" and bool(self.control)

    def stage_seeds(self, stage: int) -> tuple[int, ...]:
        """The seeds that a candidate needs at ``stage``."""
        return self.seeds[: self.stages[stage].num_seeds]

    def fingerprint(self) -> str:
        """SHA-256 of everything that decisions depend on; name and resources are left out."""
        fields = self.model_dump(mode="json", exclude={"name", "resources"})
        # Keys that came later are not in it where they are not used: a run that was begun without them goes on.
        for inside, key in ((fields, "references"), (fields, "follow_ups"), (fields["rules"], "gap")):
            if not inside[key]:
                del inside[key]
        for stage in fields["stages"]:
            if stage["when_idle"]:
                del stage["when_idle"]
        return canonical_digest(fields)

    def toml(self) -> str:
        """The resolved plan as TOML (fields that are None are left out)."""
        import tomli_w

        return tomli_w.dumps(json.loads(self.model_dump_json(exclude_none=True)))
