"""What every plan says: how far to train, with how many seeds, and on what. Frozen, validated, fingerprinted.

A plan is a search, a race or a comparison: `tune_rh.plan.kinds` has what only one of them says, and reads a plan's
fields.

Reading a plan imports pydantic and nothing heavier; presets and the family's objective are data. Whether the drawn
configs are valid is checked in `tune_rh.run.preflight`, because that needs the family's config class.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from trainables.config import canonical_digest
from trainables.spelling import for_toml
from tune_rh.plan.rules import MAX_COUNT, GapRule, PlanTable, PositiveInt, Rules
from tune_rh.plan.stages import GateTerms, Scoring, Stage

Origin = Literal["control", "preset", "sampler", "midpoint", "follow_up", "reference"]
"""Where a candidate comes from."""
ConfigFields = Annotated[dict[str, Any], AfterValidator(for_toml)]
"""Config fields as they are written down: ``"@none"`` is None (`trainables.spelling`)."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
WATCHERS = {
    "csv": "tune_rh.watch.trackers.csv_files:CsvFiles",
    "mlflow": "tune_rh.watch.trackers.mlflow_runs:MLflow",
    "wandb": "tune_rh.watch.trackers.wandb_runs:WandB",
}
"""Watchers that ship, by name; TensorBoard's files are always written."""
ACCELERATOR_LABEL = "ray.io/accelerator-type"
"""The label by which a node of a Ray cluster says what its accelerators are."""


def _countable(quantity: float) -> float:
    if quantity > 1 and quantity != int(quantity):
        raise ValueError("a share of one is below 1, and more than one is a whole number")
    return int(quantity) if quantity >= 1 else quantity


_Quantity = Annotated[float, Field(gt=0, le=MAX_COUNT), AfterValidator(_countable)]
# As Ray has labels, without the operators of its selectors: what a node has is compared as it stands.
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_LabelKey = Annotated[str, Field(pattern=rf"^([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_LABEL}$")]
_Label = Annotated[str, Field(pattern=rf"^{_LABEL}$")]


class Resources(PlanTable):
    """What one job gets. Not part of the fingerprint: a run may be resumed on other hardware.

    Ray keeps count of memory and of what is ``custom``, and limits neither. The local runner and a simulation take no
    notice of ``memory_gib``, ``custom``, ``labels`` and ``accelerator``: they place nothing.

    Attributes:
        cpu: cores of a job, below 1 or whole; it has as many torch threads, and one at the least.
        gpu: of one GPU, what a job gets: up to 0.5, or all of it (1).
        memory_gib: memory of the machine that a job is counted with, in GiB (None: memory is not counted).
        custom: what else of a Ray cluster's resources it takes, by name, below 1 or whole: ``{fpga = 1}``.
        labels: what a node must be labelled for it: ``{market = "spot"}``.
        accelerator: the type that its GPU must be of, as the cluster labels it: ``"A100"``.
        whole_gpu_after_oom: whether a job that runs out of memory on its share of a GPU is tried again, once, alone on
            a whole one, whatever ``max_failures`` says. No other job starts until it has one.
        slots: jobs at a time (None: as many as the machine or cluster has room for).
        max_failures: how often a job whose own code raised is tried again from its last checkpoint.
        max_losses: how often a job that lost its worker, its machine or its file system is.
        price_per_hour: of a GPU (of a slot, without GPUs), in your currency; for the ledger of the report.
    """

    cpu: _Quantity = 1
    gpu: Annotated[float, Field(ge=0)] = 0.0
    memory_gib: Annotated[float, Field(gt=0, le=MAX_COUNT)] | None = None
    custom: dict[str, _Quantity] = Field(default_factory=dict)
    labels: dict[_LabelKey, _Label] = Field(default_factory=dict)
    accelerator: _Label | None = None
    whole_gpu_after_oom: bool = False
    slots: PositiveInt | None = None
    max_failures: Annotated[int, Field(ge=0)] = 2
    max_losses: Annotated[int, Field(ge=0)] = 20
    price_per_hour: Annotated[float, Field(ge=0)] | None = None

    @field_validator("gpu")
    @classmethod
    def _gpu_fraction(cls, gpu: float) -> float:
        if gpu > 1:
            raise ValueError("a member is trained on one GPU: give 0, up to 0.5, or 1")
        if 0.5 < gpu < 1:
            raise ValueError("a fraction above one half never shares a GPU: give 0, up to 0.5, or 1")
        return gpu

    @model_validator(mode="after")
    def _placed(self) -> Resources:
        own = sorted({"CPU", "GPU", "memory", "object_store_memory"} & self.custom.keys())
        if own:
            raise ValueError(f"custom.{own[0]}: is a resource of Ray's own; give cpu, gpu or memory_gib")
        if self.accelerator is not None and not self.gpu:
            raise ValueError(f"accelerator = {self.accelerator!r}: is of a job on a GPU, and gpu = 0")
        if self.accelerator is not None and ACCELERATOR_LABEL in self.labels:
            raise ValueError(f"accelerator and labels.{ACCELERATOR_LABEL} are the same: give one")
        return self

    @property
    def threads(self) -> int:
        """Torch threads of a job."""
        return max(1, int(self.cpu))

    @property
    def selector(self) -> Mapping[str, str]:
        """The labels that a node must have for a job, that of its accelerator included."""
        return self.labels if self.accelerator is None else {**self.labels, ACCELERATOR_LABEL: self.accelerator}


class Variant(PlanTable):
    """A config of the plan's own, named in ``[configs]``: a preset of the family with some fields changed.

    Attributes:
        preset: what it is made from; None: the family's defaults.
        fields: config fields that differ from the preset.
        patience_steps: a patience of its own, in place of the plan's.
    """

    preset: str | None = None
    fields: ConfigFields = Field(default_factory=dict)
    patience_steps: PositiveInt | None = None


class Plan(PlanTable):
    """What a search, a race and a comparison have in common; see ``docs/plan.md`` for every key with an example.

    Attributes:
        schema_version: of this format.
        name: of the run, and of its folder.
        family: one that ships, or ``"module:attr"`` of one from outside.
        control: the config that is always run: a preset, or one of ``configs``. A race has no other.
        configs: configs by name, for ``control``, ``presets`` and ``references``.
        fixed: config fields of every config, over presets and draws.
        num_candidates: how many run beside control, references and follow-ups; presets are among them.
        seeds: a stage takes the first ``num_seeds`` of them.
        eval_every: steps between two evaluations; every stage's end is a multiple.
        save_every: steps between checkpoints beside those of bests, gates and clean stops.
        stages: how far candidates train, with how many seeds; between two of them is a gate.
        scoring: how seeds make a score.
        rules: what stops a member, and what keeps a candidate from going on.
        scheduler: decides what runs next: one by name, or ``"module:attr"`` (`tune_rh.decide.scheduler`).
        resources: what one job gets.
        diagnose: diagnostics that look at members which reach the last stage (none given: all of the family's).
        require: those that a candidate must not fail to be exported as the best.
        watch: what else follows the run: trackers by name, or ``"module:attr"`` (`tune_rh.watch.watchers`).
        objective: the family's; given, it must agree.
        mode: whether the objective is better when small or large; the family's.
        unit: what a gate chooses among: candidates, or the members of one config.
    """

    kind: ClassVar[Literal["search", "race", "comparison"]]
    members_compete: ClassVar[bool] = False
    """Whether the gates' entries are members of one config, not candidates."""
    protects_control: ClassVar[bool] = True
    """Whether the control is run first, and no rule stops it or a reference."""
    diagnoses_all: ClassVar[bool] = True
    """Whether all diagnostics of the family run where the plan names none."""

    schema_version: Literal[1] = 1
    name: Name
    family: str
    control: str
    configs: dict[str, Variant] = Field(default_factory=dict)
    fixed: ConfigFields = Field(default_factory=dict)
    num_candidates: Annotated[int, Field(ge=0, le=10**12)]
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...]
    eval_every: PositiveInt
    save_every: PositiveInt | None = None
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    scoring: Scoring = Scoring()
    rules: Rules = Rules()
    scheduler: str
    resources: Resources = Resources()
    diagnose: tuple[str, ...] | None = None
    require: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    objective: str = ""
    mode: Literal["min", "max"] = "min"

    @field_validator("watch")
    @classmethod
    def _known(cls, watch: tuple[str, ...]) -> tuple[str, ...]:
        strange = [name for name in watch if name not in WATCHERS and ":" not in name]
        if strange:
            raise ValueError(f"{strange[0]!r}: known: {', '.join(WATCHERS)}; one of your own is 'module:attr'")
        return watch

    @model_validator(mode="after")
    def _check(self) -> Self:
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
        self._check_kind()
        return self

    def _check_kind(self) -> None:
        """Raise ValueError for what this kind of plan does not allow."""

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
            if previous and not stage.follows(previous):
                raise ValueError(
                    f"{where}.until_step = {stage.until_step} must be above {previous.until_step}, the stage before; "
                    f"or the same, with more seeds than its {previous.num_seeds}"
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
    def last_stage(self) -> int:
        """Index of the last stage."""
        return len(self.stages) - 1

    @property
    def has_control(self) -> bool:
        """Whether the first candidate is a control that the gates leave alone."""
        return bool(self.control)

    @property
    def named(self) -> tuple[tuple[str, Origin], ...]:
        """The configs that run by name, in order, with what each is."""
        return ((self.control, "control"),) if self.control else ()

    @property
    def from_outside(self) -> tuple[str, ...]:
        """What it names as ``"module:attr"``: code that does not ship with tune-rh."""
        return tuple(name for name in (self.family, self.scheduler, *self.watch) if ":" in name)

    @property
    def num_configs(self) -> int:
        """How many configs run if nothing ends the search early."""
        return len(self.named)

    @property
    def gap(self) -> GapRule | None:
        """How far behind the control a candidate may be at a gate."""
        return None

    def gate(self, stage: int) -> GateTerms:
        """What the gate at the end of ``stage`` goes by."""
        return GateTerms(math.inf, False, self.scoring)

    def turn(self, candidate: int, seed: int) -> tuple[int, int]:
        """Sort key of a member that waits: the index of its candidate, then of its seed."""
        return candidate, seed

    def stage_seeds(self, stage: int) -> tuple[int, ...]:
        """The seeds that a candidate needs at ``stage``."""
        return self.seeds[: self.stages[stage].num_seeds]

    def with_changes(self, changes: Mapping[str, Any]) -> Self:
        """The plan with some fields as in ``changes``, values as JSON has them; raises pydantic.ValidationError."""
        return self.model_validate_json(json.dumps({**self.model_dump(mode="json"), **changes}))

    def fingerprint(self) -> str:
        """SHA-256 of everything that decisions depend on; name, resources and watchers are left out."""
        fields = self.model_dump(mode="json", exclude={"name", "resources", "watch"})
        if fields.get("earlier") is None:  # plans that were frozen before there was such a field have none
            fields.pop("earlier", None)
        return canonical_digest(fields)

    def toml(self) -> str:
        """The resolved plan as TOML (fields that are None are left out)."""
        import tomli_w

        return tomli_w.dumps(json.loads(self.model_dump_json(exclude_none=True)))
