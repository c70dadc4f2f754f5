"""What a family of models is to the rest of the project: data and protocols, standard library only.

Not here: anything that imports torch, numpy or pydantic. Heavy parts are named as ``"module:attr"`` and imported
when they are first used (`trainables.registry.resolve`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

Split = Literal["val", "test"]
Progress = Callable[[int, int], None]
"""Called with (done, total) while data is being made."""


@dataclass(frozen=True)
class Metric:
    """A number that `TrainTask.evaluate` or `TrainTask.step` reports.

    Attributes:
        name: key in the reported mapping.
        mode: which direction is better.
        unit: what it is counted in, for tables and axes.
        description: one sentence.
        rate_of: a reported count that only grows; this is its growth per second of training. The trainer measures
            and adds it, since a task has no clock. Empty: the task reports this metric.
    """

    name: str
    mode: Literal["min", "max"]
    unit: str
    description: str
    rate_of: str = ""


def test_metric(objective: str) -> str:
    """``val_nll`` -> ``test_nll``, ``eval_loss`` -> ``test_eval_loss``: how tasks name the objective on test."""
    return "test_" + objective.removeprefix("val_")


@dataclass(frozen=True)
class HealthCheck:
    """A bound on a reported metric; a candidate outside of it is never promoted.

    Attributes:
        metric: that tasks report; NaN is out of bounds.
        at_least, at_most: the bounds.
        in_a_row: out of bounds only if the last so many reports all are.
        after_step: reports up to this step do not count.
        required: a report without the metric is out of bounds; otherwise it does not count (not every config has it).
        stops: a model that is out of bounds stops training at once.
        id: of the rule of live health that this is, such as ``H20`` (``docs/health.md``).
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    in_a_row: int = 1
    after_step: int = 0
    required: bool = True
    stops: bool = False
    id: str = ""


class TrainTask(Protocol):
    """One model in training: science only. No Ray, no files, no global RNG."""

    model: Any
    """The `torch.nn.Module`; its ``state_dict`` equals ``state_dict()["model"]``."""

    def step(self) -> Mapping[str, float]:
        """Take one optimiser step. Returns at least ``train_loss``; non-finite values are returned, not raised.

        Names that begin with ``train_`` or ``grad_norm`` are averaged over the steps that report them; of others the
        last value of an interval is kept. Live health reads ``lr``, ``grad_norm``, ``tokens`` (so far) and
        ``fallbacks`` (of this step, from a kernel to a slower one) where they are there.
        """
        ...

    def evaluate(self, split: Split = "val") -> Mapping[str, float]:
        """Evaluate the present weights. The same weights give the same numbers, and training is left untouched.

        A name belongs to one split, and to `step` or `evaluate`: on test a metric is called as `test_metric` says.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that `step` depends on: ``model``, optimiser, schedule, data position, every RNG.

        ``state["model"]`` maps names to tensors; the rest is tensors, numbers, strings, lists and dicts, so that
        ``torch.load(weights_only=True)`` reads it.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Afterwards `step` continues bit for bit, whatever seed this task was built with."""
        ...


class TaskFactory(Protocol):
    """``Family.task``: builds a task from a config and the facts of the run."""

    def __call__(self, config: Any, *, seed: int, device: str, data_dir: Path) -> TrainTask:
        """Build the model and its data; raises `trainables.errors.DataError` if data is missing or corrupt."""
        ...


class DataSource(Protocol):
    """``Family.data``: makes and checks the data sets of a family."""

    names: tuple[str, ...]

    def prepare(self, name: str, data_dir: Path, progress: Progress | None = None) -> Path:
        """Make data set ``name`` unless it is there and sound; resumes where it was cut off. Returns its path."""
        ...

    def digest(self, name: str, data_dir: Path) -> str:
        """SHA-256 of the data set as recorded beside it; raises `DataMissing` or `DataCorrupt`."""
        ...


@runtime_checkable
class ConfigCheck(Protocol):
    """A `DataSource` that can tell, before anything is launched, whether a config fits its data set."""

    def check(self, config: Any, data_dir: Path) -> None:
        """Raise `DataError` naming the field of ``config``, its value and what its data set, which is made, allows."""
        ...


@runtime_checkable
class Accompanied(Protocol):
    """A `DataSource` with files that a model trained on its data is of no use without, such as a tokenizer."""

    def companions(self, name: str, data_dir: Path) -> Mapping[str, Path]:
        """What they are called in an export of the model, and where they lie; raises as `DataSource.digest`."""
        ...


@dataclass(frozen=True)
class DataSetInfo:
    """A data set as a list shows it.

    Attributes:
        name: as configs spell it.
        summary: what it is, in a clause; empty if the name says it.
        licence: empty if nothing was taken from elsewhere.
        megabytes: about how much it holds; 0 if that means little.
        state: made or not, in a clause.
        details: sentences about what was made.
    """

    name: str
    summary: str
    licence: str
    megabytes: float
    state: str
    details: tuple[str, ...] = ()


@runtime_checkable
class CorpusSource(Protocol):
    """A `DataSource` of text: corpora in vocabularies of any size, and folders of one's own."""

    def sets(self, data_dir: Path) -> tuple[DataSetInfo, ...]:
        """All that can be made, then what else is in ``data_dir``."""
        ...

    def set_name(self, corpus: str, vocab_size: int) -> str:
        """The name of the data set of a corpus in a vocabulary; raises `DataError`."""
        ...

    def prepare_folder(
        self,
        folder: Path,
        name: str,
        data_dir: Path,
        *,
        vocab_size: int | None,
        text_field: str,
        progress: Progress | None,
    ) -> Path:
        """Make the data set ``name`` of the documents in ``folder``; returns its path."""
        ...


@dataclass(frozen=True)
class Finding:
    """What a check before launch has found.

    Attributes:
        id: of the check: ``P20`` for one of plan and machine, ``T03`` for one of the trial round trip.
        part: what has to be mended: ``task.evaluate``, ``space 'wide'``, ``save_every``.
        message: what is wrong with it: the value, and what is allowed.
        level: ``refuse`` keeps the run from starting; ``warn`` is said and no more.
    """

    id: str
    part: str
    message: str
    level: Literal["refuse", "warn"] = "refuse"

    def __str__(self) -> str:
        return f"{self.id} {self.part}: {self.message}"


@dataclass(frozen=True)
class Footprint:
    """What a config takes in training, and how it computes. Sizes are those of float32.

    Attributes:
        parameters: how many the model has.
        activations: bytes that the forward pass of a micro-batch keeps for its backward pass.
        logits: bytes that the loss takes besides, in float32 whatever the rest is in.
        amp: ``auto`` (bfloat16 where a GPU computes in it), ``off`` (float32) or ``bf16``.
        attention: its kernels; ``fused`` takes the best that torch has.
        checkpointing: whether activations are computed again in the backward pass; None: the family cannot.
    """

    parameters: int
    activations: int
    logits: int = 0
    amp: Literal["auto", "off", "bf16"] = "auto"
    attention: Literal["fused", "flash", "math", "none"] = "fused"
    checkpointing: bool | None = None


@dataclass(frozen=True)
class Preflight:
    """What a family knows of its configs before anything is launched; see ``docs/preflight.md`` for the ids.

    Attributes:
        footprint: of a config, without building its model.
        toys: presets that no long run on an accelerator is worth (P30).
        least: id -> (field, least value that is worth one), such as ``{"P32": ("width", 256)}``.
        rules: field -> id of the check that the config's own validation of this field stands for.
        check: what only a function can tell of a valid config.
    """

    footprint: Callable[[Any], Footprint] | None = None
    toys: tuple[str, ...] = ()
    least: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Any], Iterable[Finding]] | None = None


@dataclass(frozen=True)
class CausalProbe:
    """A series and what a model says of it: for the law that no prediction sees what it predicts, or what follows.

    Attributes:
        series: tensor (length,) of what the data set holds, before anything is derived from it.
        other: tensor (length,), another such series, different at every place.
        predict: the model's predictions along a series, (predictions, numbers), without dropout.
        targets: tensor (predictions,), the place of what each predicts; it may depend on what lies before that alone.
    """

    series: Any
    other: Any
    predict: Callable[[Any], Any]
    targets: Any


@dataclass(frozen=True)
class Family:
    """One kind of model with its data and training task.

    Attributes:
        name: as plans and the command line spell it.
        summary: one line for ``tune-rh families``.
        config: ``"module:attr"`` of the frozen pydantic config.
        model: ``"module:attr"`` of what builds the untrained ``torch.nn.Module`` from a config alone; empty: only a
            task can.
        task: ``"module:attr"`` of a `TaskFactory`.
        data: ``"module:attr"`` of a `DataSource`.
        dataset: the data set of all its configs; empty: the name that a config has in its field ``data``.
        objective: what a search decides by.
        metrics: everything that tasks report, the objective included.
        presets: named, complete sets of config fields that differ from the defaults.
        health: checks that a candidate must pass to be promoted.
        spaces: ``"module:attr"`` of the search spaces, name -> `search_spaces.api.Space`.
        sample: ``"module:attr"`` of a function of a task that returns what diagnostics look at: a fixed sample of the
            validation split, the same for every model of the same data.
        baselines: ``"module:attr"`` of an `analysis.diagnose.api.Baselines`, or of several: what a win has to beat.
        diagnostics: ``"module:attr"`` of a sequence of `analysis.diagnose.api.Diagnostic`, in the order of reports.
        extraction: ``"module:attr"`` of an `analysis.extraction.Extractor`: what a winner has learnt, as a formula.
        preflight: ``"module:attr"`` of a `Preflight`, in a module that loads no torch.
        causal: ``"module:attr"`` of a function of a task that returns a `CausalProbe`, for families whose predictions
            may see the past alone.
        knowledge: ``"module:attr"`` of a function of a config that returns its `trainables.knowledge.Knowledge`, in a
            module that loads no torch: what its models may know, where they do not all know the same.

    Those of `trainables.registry.OPTIONAL` may be left empty: a family without them is searched all the same.
    """

    name: str
    summary: str
    config: str
    model: str
    task: str
    data: str
    objective: Metric
    metrics: tuple[Metric, ...]
    presets: Mapping[str, Mapping[str, Any]]
    health: tuple[HealthCheck, ...] = field(default=())
    spaces: str = ""
    sample: str = ""
    baselines: str = ""
    diagnostics: str = ""
    extraction: str = ""
    preflight: str = ""
    causal: str = ""
    knowledge: str = ""
    dataset: str = ""
