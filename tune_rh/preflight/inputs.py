"""What configs and search spaces hand in, as it would fail later: a config that is lost when it is written down, a
name that a space asks for in two ways, draws that are no config. Nothing heavy is loaded.
"""

from __future__ import annotations

import json
import math
import numbers
import reprlib
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import tomli_w
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from search_spaces.api import RandomTrial, Space, Unsatisfiable
from trainables.api import Finding
from trainables.config import FrozenConfig
from trainables.errors import UnknownFamily
from trainables.registry import FAMILIES, OPTIONAL, get_family, get_part
from trainables.spelling import equal, for_toml, read_config, spelt
from tune_rh.plan.file import explain
from tune_rh.record.failure import headline

NUM_DRAWS = 50
_CHOICES = (type(None), bool, int, float, str)


def check_config(part: str, config: Any) -> Iterator[Finding]:
    """T10: a config comes back equal from JSON and from TOML, with the same digest.

    Args:
        part: where it comes from: ``preset 'e4'``.
        config: it.
    """
    for way, travel in (("JSON", _by_json), ("TOML", _by_toml)):
        try:
            written = spelt(config)
            read = read_config(type(config), travel(written))
            same = spelt(read) == written
        except (ValueError, TypeError) as error:
            yield from _lost_fields(part, config, way, travel, error)
            return
        fields = type(config).model_fields
        changing = [name for name, field in fields.items() if field.default_factory and not _is_steady(field)]
        for name in changing:
            yield Finding("T10", f"{part}, {name}", "its default is another one each time: give a value")
        if changing:
            return
        lost = [name for name in fields if not equal(getattr(read, name), getattr(config, name))]
        for name in lost:
            yield Finding("T10", f"{part}, {name}", _not_equal(getattr(config, name), getattr(read, name), way))
        if lost:
            return
        if not same:
            yield Finding("T10", part, f"is written otherwise, with another digest, once it comes back from {way}")


@dataclass(frozen=True)
class Drawn:
    """What came of `NUM_DRAWS` draws of a space.

    Attributes:
        findings: what is wrong with how it asks, and how many draws are no valid config.
        configs: those that are valid.
        asked: the names that it asks for.
        fields: those that it sets.
        error: why the first draw that is no config is none.
        ways: how it asks for each name.
    """

    findings: Sequence[Finding]
    configs: Sequence[Any]
    asked: Set[str]
    fields: Set[str]
    error: BaseException | None
    ways: Mapping[str, Sequence[str]]


def check_space(part: str, space: Space, build: Callable[[Mapping[str, Any]], Any]) -> Drawn:
    """T11, T12: what draws of a space ask for, and whether they are configs.

    Args:
        part: ``space 'wide'``.
        space: it.
        build: makes the config of what was drawn; raises pydantic.ValidationError or `Unsatisfiable`.
    """
    asked: dict[str, list[str]] = {}
    found: dict[str, Finding] = {}
    configs, fields, reasons, errors = [], set[str](), Counter[str](), list[BaseException]()
    for seed in range(NUM_DRAWS):
        trial = _NotedTrial(seed, part, asked, found)
        try:
            drawn = space.suggest(trial)
            if not isinstance(drawn, dict):
                raise TypeError(f"suggest returns {type(drawn).__name__}: allowed is a dict of config fields")
            fields |= drawn.keys()
            configs.append(build(drawn))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - code of the user's: it becomes a finding
            reasons[_reason(error)] += 1
            errors.append(error)
    for name, ways in asked.items():
        if len(ways) > 1:
            said = " and as ".join(map(_cut, ways[:3]))
            message = f"asks for {name} as {said}: a sampler knows a name by one of them; use two names"
            found.setdefault(name, Finding("T11", part, message))
    if reasons and not found:  # what is asked wrongly cannot be answered
        found[""] = _refused(part, reasons)
    return Drawn([*found.values()], configs, asked.keys(), fields, errors[0] if errors else None, asked)


def check_family(name: str) -> Iterator[Finding]:
    """P00: what a family from outside (``"module:attr"``) lacks; those of this project are tested."""
    if name in FAMILIES:
        return
    family, part, parts = get_family(name), f"family {name}", dict[str, Any]()
    for one in ("config", "task", "data", *OPTIONAL):
        try:
            parts[one] = get_part(name, one)
        except UnknownFamily as error:
            yield Finding("P00", part, str(error).removeprefix(f"{part}: "))
    config = parts.get("config", FrozenConfig)
    if not (isinstance(config, type) and issubclass(config, FrozenConfig)):
        yield Finding("P00", part, f"config = {family.config!r}: is no trainables.config.FrozenConfig")
    elif "config" in parts and not family.dataset and "data" not in config.model_fields:
        yield Finding(
            "P00",
            part,
            f"config = {family.config!r}: has no field data, the name of its data set, and the family no dataset",
        )
    named = Counter(metric.name for metric in family.metrics)
    for metric, times in named.items():
        if times > 1:
            yield Finding("P00", part, f"metric {metric!r} is declared {times} times")
    if family.objective.name not in named:
        yield Finding("P00", part, f"objective {family.objective.name!r} is not among its metrics")
    for check in family.health:
        if check.metric not in named:
            yield Finding("P00", part, f"health: metric {check.metric!r} is not among its metrics")
        if check.at_least is None and check.at_most is None:
            yield Finding("P00", part, f"health: {check.metric!r} has no bound; give at_least, at_most, or both")


def _reason(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return explain(error, "draw").removeprefix("draw: ").partition("\n")[0]
    if isinstance(error, Unsatisfiable):
        return str(error)
    return headline("".join(traceback.format_exception(error)))


def _refused(part: str, reasons: Counter[str]) -> Finding:
    (why, _), num = reasons.most_common(1)[0], reasons.total()
    if num == NUM_DRAWS:
        return Finding("T12", part, why)
    message = f"{num} of {NUM_DRAWS} draws are no valid config: {why}"
    if 2 * num > NUM_DRAWS:
        return Finding("T12", part, f"{message}; make them of what is valid")
    return Finding("T12", part, f"{message}; such draws are passed over", "warn")


class _NotedTrial(RandomTrial):
    """Notes how each name is asked for, and what of it no sampler can answer."""

    def __init__(self, seed: int, part: str, asked: dict[str, list[str]], found: dict[str, Finding]) -> None:
        super().__init__(seed)
        self._part, self._asked, self._found = part, asked, found

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        wrong = _wrong_range(low, high, step, log)
        self._note(name, f"{low} to {high}{_options(step, log)}", wrong)
        return super().suggest_float(name, low, high, step=step, log=log)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        apart = None if step == 1 else step
        whole = f"{low} to {high}{_options(apart, log)}, whole"
        wrong = _wrong_range(low, high, apart, log)
        if not all(isinstance(bound, int) and not isinstance(bound, bool) for bound in (low, high, step)):
            wrong = "bounds and step of a whole number are whole"
        self._note(name, whole, wrong)
        return super().suggest_int(name, low, high, step=step, log=log)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if isinstance(choices, str) or not isinstance(choices, Sequence):
            self._note(name, f"one of {reprlib.repr(choices)}", "choices are a list or a tuple")
        self._note(name, f"one of [{', '.join(map(repr, choices))}]", _wrong_choices(choices))
        return super().suggest_categorical(name, choices)

    def _note(self, name: str, way: str, wrong: str) -> None:
        """Note how a name is asked for; ends the draw where what is wrong cannot be answered."""
        if not isinstance(name, str) or not name:
            wrong = "a name is text, and not empty"
        if wrong:
            self._found.setdefault(name, Finding("T11", self._part, f"asks for {name} as {_cut(way)}: {wrong}"))
            raise ValueError(wrong)
        ways = self._asked.setdefault(name, [])
        if way not in ways:
            ways.append(way)


def _options(step: float | None, log: bool) -> str:
    return (f" in steps of {step}" if step is not None else "") + (" in the logarithm" if log else "")


def _wrong_range(low: float, high: float, step: float | None, log: bool) -> str:
    if not all(isinstance(bound, numbers.Real) for bound in (low, high)):
        return "bounds are numbers"
    if not math.isfinite(low) or not math.isfinite(high):
        return "bounds are finite"
    if low > high:
        return "the first bound is the lower one"
    if step is not None and not step > 0:
        return "a step is above 0"
    if log and low <= 0:
        return "a logarithm begins above 0"
    return "a range in the logarithm has no steps" if log and step is not None else ""


def _wrong_choices(choices: Sequence[Any]) -> str:
    if not len(choices):
        return "there is nothing to choose from"
    for choice in choices:
        if not isinstance(choice, _CHOICES):
            return (
                f"{choice!r} ({type(choice).__name__}) is no choice: allowed are text, numbers, True, False and None; "
                "choose a name or a number, and make the rest of it in the space or in the config"
            )
        if isinstance(choice, float) and math.isnan(choice):
            return "nan is no choice, for it is not equal to itself"
    kinds = {
        (type(a).__name__, type(b).__name__) for a in choices for b in choices if a == b and type(a) is not type(b)
    }
    return f"choices that are equal have one type, not {' and '.join(sorted(kinds)[0])}" if kinds else ""


def _is_steady(field: FieldInfo) -> bool:
    first, second = (field.get_default(call_default_factory=True, validated_data={}) for _ in range(2))
    return equal(first, second)


def _by_json(fields: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(fields, allow_nan=False, ensure_ascii=False).encode())


def _by_toml(fields: Mapping[str, Any]) -> Any:
    return tomllib.loads(tomli_w.dumps(for_toml(fields)).encode().decode())


def _lost_fields(
    part: str, config: Any, way: str, travel: Callable[[Mapping[str, Any]], Any], error: Exception
) -> Iterator[Finding]:
    """Which fields cannot be written, or not be read; else that the whole cannot."""
    found = False
    for name in type(config).model_fields:
        value = getattr(config, name)
        try:
            alone = spelt(config, only=name)
            travel(alone)
        except (ValueError, TypeError) as why:
            found = True
            yield Finding("T10", f"{part}, {name}", f"{_shown(value)} cannot be written as {way} ({_first(why)})")
    if isinstance(error, ValidationError):
        found = True
        for line in explain(error, "", type(config)).splitlines():
            yield Finding("T10", part, f"does not come back from {way}{line}")
    if not found:
        yield Finding("T10", part, f"cannot be written as {way} ({_first(error)})")


def _not_equal(was: Any, now: Any, way: str) -> str:
    return (
        f"{_shown(was)} comes back from {way} as {_shown(now)}: declare the field with its type (tuple[float, float], "
        "an Enum, a model), so that it is read as one"
    )


def _shown(value: Any) -> str:
    return f"{_cut(repr(value))} ({type(value).__name__})"


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}..."


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
