"""Recorded learning curves of many configs and seeds, in one Parquet file: what a search is simulated on.

A table is made from a run of our own (`tune_rh.simulation.recorded`) or from published curves. Values keep the
objective's own sign; `CurveTable.truth` is minimised. Curves may differ in length, because a search stops most of its
members at a gate: `CurveTable.complete` keeps what can be simulated to a given step.

Nothing is extrapolated beyond a curve's end. A parameter that a config lacks is simply missing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainables.files import replacing
from tune_rh.errors import PlanError

Value = int | float | str | bool
Array = NDArray[np.float64]

_SCHEMA = 1
_KEY = b"tune_rh.simulation.curve_table"
_COLUMNS = pa.schema(
    [
        ("config", pa.int32()),
        ("seed", pa.int64()),
        ("steps", pa.list_(pa.int64())),
        ("values", pa.list_(pa.float64())),
        ("seconds", pa.list_(pa.float64())),
    ]
)


@dataclass(frozen=True, eq=False)
class Curve:
    """One config with one seed.

    Attributes:
        seed: the same id in two configs means the same seed, where the source says so.
        steps: (n,) strictly increasing, from 1 on.
        values: (n,) the objective in its own sign; not finite where it diverged or failed.
        seconds: (n,) wall-clock from the member's start to each step, never falling.
    """

    seed: int
    steps: NDArray[np.int64]
    values: Array
    seconds: Array

    @property
    def is_lost(self) -> bool:
        """Whether it ended by diverging or failing: its last value is not finite."""
        return not math.isfinite(self.values[-1])

    def reaches(self, step: int) -> bool:
        """Whether it has a reading at ``step``, or was lost before."""
        return bool(self.is_lost and step >= self.steps[-1]) or bool(np.isin(step, self.steps))

    def until(self, step: int) -> Curve:
        """The part up to and including ``step``."""
        end = int(np.searchsorted(self.steps, step, side="right"))
        return Curve(self.seed, self.steps[:end], self.values[:end], self.seconds[:end])


@dataclass(frozen=True)
class Parameter:
    """What a sampler may draw for one hyperparameter: a range, or choices.

    Attributes:
        kind: ``float`` and ``int`` have ``low`` and ``high`` (both included), ``categorical`` has ``choices``.
        log: whether distances and draws are in the logarithm; needs ``low`` above 0.
    """

    kind: Literal["float", "int", "categorical"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Value, ...] = ()

    def unit(self, value: float) -> float:
        """A number's place in the range, 0 to 1."""
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (at - low) / (high - low) if high > low else 0.0

    def holds(self, value: Value) -> bool:
        """Whether the value can be drawn."""
        if self.kind == "categorical":
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        number = int if self.kind == "int" else (int, float)
        return isinstance(value, number) and not isinstance(value, bool) and self.low <= value <= self.high

    def problem(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.kind not in ("float", "int", "categorical"):
            return f"kind = {self.kind!r}: float, int or categorical"
        if self.kind == "categorical":
            return "" if self.choices else "choices = (): at least one"
        if not self.low <= self.high or not math.isfinite(self.high - self.low):
            return f"low = {self.low!r}, high = {self.high!r}: finite, and low not above high"
        return f"low = {self.low!r}: above 0 where log is set" if self.log and self.low <= 0 else ""


@dataclass(frozen=True, eq=False)
class CurveTable:
    """Learning curves of one task; see the module.

    Attributes:
        source: where the curves are from, and their licence.
        configs: the hyperparameters of each config; all empty where none are known.
        labels: a name for each config.
        curves: for each config its replicates, at least one, each with another seed.
        parameters: the hyperparameters that a sampler may draw; every config's values lie inside.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    name: str
    objective: str
    mode: Literal["min", "max"]
    source: str
    configs: tuple[Mapping[str, Value], ...]
    labels: tuple[str, ...]
    curves: tuple[tuple[Curve, ...], ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode = {self.mode!r}: min or max")
        if not self.configs:
            raise ValueError("configs: a table has at least one")
        for name in ("labels", "curves"):
            if len(getattr(self, name)) != len(self.configs):
                raise ValueError(f"{name}: {len(getattr(self, name))} of them for {len(self.configs)} configs")
        for name, parameter in self.parameters.items():
            if problem := parameter.problem():
                raise ValueError(f"parameters.{name}.{problem}")
        for i, (config, curves) in enumerate(zip(self.configs, self.curves, strict=True)):
            for name, value in config.items():
                if name not in self.parameters:
                    raise ValueError(f"configs[{i}].{name} = {value!r}: no such parameter")
                if not self.parameters[name].holds(value):
                    raise ValueError(f"configs[{i}].{name} = {value!r}: outside of {self.parameters[name]}")
            if not curves or len({curve.seed for curve in curves}) < len(curves):
                raise ValueError(f"curves[{i}]: seeds {[c.seed for c in curves]}: at least one, and each once")
            for j, curve in enumerate(curves):
                if problem := _problem(curve):
                    raise ValueError(f"curves[{i}][{j}].{problem}")

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Every step that some curve has, increasing."""
        return tuple(np.unique(np.concatenate([c.steps for replicates in self.curves for c in replicates])).tolist())

    @property
    def max_step(self) -> int:
        """The last of `steps`."""
        return self.steps[-1]

    @cached_property
    def values(self) -> tuple[Array, ...]:
        """For each config (replicates, len(steps)): the readings, NaN where there is none and after a loss."""
        grids = []
        for replicates in self.curves:
            grid = np.full((len(replicates), len(self.steps)), math.nan)
            for row, curve in zip(grid, replicates, strict=True):
                row[np.searchsorted(self.steps, curve.steps)] = np.where(
                    np.isfinite(curve.values), curve.values, math.nan
                )
            grids.append(grid)
        return tuple(grids)

    @cached_property
    def truth(self) -> Array:
        """(configs,) the mean over replicates of the best value up to `max_step`, minimised: what a search looks for.

        The sign is turned for mode ``max``. A replicate that never had a finite value counts as the worst best value
        of the table (infinity if no replicate had any). Curves that end early make it unfair: see `complete`.
        """
        sign = 1.0 if self.mode == "min" else -1.0
        best = [np.where(np.isfinite(v), sign * v, math.inf).min(axis=1) for v in self.values]
        finite = [value for rows in best for value in rows.tolist() if math.isfinite(value)]
        worst = max(finite, default=math.inf)
        return np.array([np.where(np.isfinite(rows), rows, worst).mean() for rows in best])

    def complete(self, step: int, num_seeds: int) -> tuple[CurveTable, int]:
        """The configs that can be simulated to ``step`` with ``num_seeds`` seeds, and how many are left out.

        A replicate is kept if it reaches ``step`` or was lost before, and is cut there, so that `truth` compares like
        with like. In the record of a search this leaves the configs that passed every gate: few, and better than a draw
        from the space. Raises PlanError if none is left.
        """
        kept: list[int] = []
        curves: list[tuple[Curve, ...]] = []
        for i, replicates in enumerate(self.curves):
            reaching = tuple(curve.until(step) for curve in replicates if curve.reaches(step))
            if len(reaching) >= num_seeds:
                kept.append(i)
                curves.append(reaching)
        if not kept:
            raise PlanError(
                f"curves {self.name!r}: none of {len(self.configs)} configs has {num_seeds} seeds to step {step}; "
                f"steps there: {', '.join(str(s) for s in self.steps[-5:])}"
            )
        configs = tuple(self.configs[i] for i in kept)
        table = replace(self, configs=configs, labels=tuple(self.labels[i] for i in kept), curves=tuple(curves))
        return table, len(self.configs) - len(kept)

    def nearest(self, config: Mapping[str, Value], exclude: Collection[int] = ()) -> int:
        """The config nearest to ``config``, the first of equals.

        The distance is Euclidean over `parameters`: numbers by their place in the range (in the logarithm where the
        parameter is), categories and a value that only one of the two has by 0 or 1. Raises ValueError if the table has
        no such parameters, or every config is excluded.
        """
        unknown = sorted(config.keys() - self.parameters.keys())
        if not self.parameters or unknown:
            known = ", ".join(self.parameters) or "none"
            raise ValueError(f"curves {self.name!r}: parameters {unknown} are not in the table; there: {known}")
        if len(set(exclude)) >= len(self.configs):
            raise ValueError(f"curves {self.name!r}: all {len(self.configs)} configs are excluded")
        squares = np.zeros(len(self.configs))
        for name, parameter in self.parameters.items():
            squares += self._squares(name, parameter, config.get(name))
        squares[list(exclude)] = math.inf
        return int(np.argmin(squares))

    def _squares(self, name: str, parameter: Parameter, value: Value | None) -> Array:
        """Squared distance of each config in one parameter."""
        there = np.array([name in config for config in self.configs])
        if value is None:
            return there.astype(float)
        if parameter.kind == "categorical":
            same = [config.get(name) == value and type(config[name]) is type(value) for config in self.configs]
            return 1.0 - np.array(same, dtype=float)
        squares = np.square(self._places[name] - parameter.unit(float(value)))
        return np.where(there, squares, 1.0)

    @cached_property
    def _places(self) -> dict[str, Array]:
        numbers = {name: p for name, p in self.parameters.items() if p.kind != "categorical"}
        return {
            name: np.array([p.unit(float(config[name])) if name in config else math.nan for config in self.configs])
            for name, p in numbers.items()
        }


def save(table: CurveTable, path: Path) -> None:
    """Write one Parquet file: a row for each curve, everything else as JSON in the schema's metadata."""
    facts = {name: getattr(table, name) for name in ("name", "objective", "mode", "source", "configs", "labels")}
    facts["parameters"] = {name: asdict(parameter) for name, parameter in table.parameters.items()}
    rows = [
        {"config": i, "seed": c.seed, "steps": c.steps, "values": c.values, "seconds": c.seconds}
        for i, replicates in enumerate(table.curves)
        for c in replicates
    ]
    metadata = {_KEY: json.dumps({"schema": _SCHEMA, **facts}, allow_nan=False).encode()}
    columns = pa.Table.from_pylist(rows, schema=_COLUMNS).replace_schema_metadata(metadata)
    # Neighbouring readings share their high bytes: split by byte, they compress well and stay exact.
    split = ["values.list.element", "seconds.list.element"]
    kept = {"use_dictionary": ["config", "seed"], "use_byte_stream_split": split}
    with replacing(path) as file:
        pq.write_table(columns, file, compression="zstd", **kept)


def load(path: Path) -> CurveTable:
    """Read what `save` wrote.

    Raises:
        PlanError: naming the file, the field, its value and what is allowed.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("no regular file")
        with path.open("rb") as file:  # pyarrow itself opens only files whose path is UTF-8
            columns = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise PlanError(f"{path}: cannot be read as a Parquet file: {error}") from error
    metadata = (columns.schema.metadata or {}).get(_KEY)
    if metadata is None:
        raise PlanError(f"{path}: a Parquet file, but no curve table: its schema has no {_KEY.decode()!r}")
    if not columns.schema.equals(_COLUMNS):
        raise PlanError(f"{path}: columns {columns.schema.names}: a curve table has {_COLUMNS.names} of other types")
    try:
        facts = json.loads(metadata)
        if facts.pop("schema", None) != _SCHEMA:
            raise ValueError(f"schema: this version of tune-rh reads {_SCHEMA}")
        return _table(facts, columns.to_pylist())
    except KeyError as error:
        raise PlanError(f"{path}: {error}: missing") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise PlanError(f"{path}: {error}") from error


def _table(facts: dict[str, Any], rows: Iterable[Mapping[str, Any]]) -> CurveTable:
    curves: list[list[Curve]] = [[] for _ in facts["configs"]]
    for i, row in enumerate(rows):
        config = row["config"]
        if config is None or not 0 <= config < len(curves):
            raise ValueError(f"row {i}: config = {config!r}: 0 to {len(curves) - 1}")
        if any(row[name] is None for name in ("seed", "steps", "values", "seconds")):
            raise ValueError(f"row {i}: empty cells")
        steps = np.array(row["steps"], dtype=np.int64)
        values, seconds = (np.array(row[name], dtype=np.float64) for name in ("values", "seconds"))
        curves[config].append(Curve(row["seed"], steps, values, seconds))
    parameters = {
        name: Parameter(**{**given, "choices": tuple(given["choices"])}) for name, given in facts["parameters"].items()
    }
    given = {name: facts[name] for name in ("name", "objective", "mode", "source")}
    return CurveTable(
        **given,
        configs=tuple(facts["configs"]),
        labels=tuple(facts["labels"]),
        curves=tuple(tuple(replicates) for replicates in curves),
        parameters=parameters,
    )


def _problem(curve: Curve) -> str:
    sizes = {len(curve.steps), len(curve.values), len(curve.seconds)}
    if len(sizes) > 1 or 0 in sizes:
        return f"steps, values, seconds: {len(curve.steps)}, {len(curve.values)}, {len(curve.seconds)} of them"
    if curve.steps[0] < 1 or (np.diff(curve.steps) <= 0).any():
        return f"steps = {curve.steps[:5].tolist()}...: from 1 on, strictly increasing"
    if not np.isfinite(curve.seconds).all() or curve.seconds[0] < 0 or (np.diff(curve.seconds) < 0).any():
        return f"seconds = {curve.seconds[:5].tolist()}...: finite, from 0 on, never falling"
    return ""
