"""Plans as files: find, read, override, validate, and say in words what is wrong with one.

Not here: what a plan is (`tune_rh.plan.schema`), nor whether its configs can be built (`tune_rh.run.preflight`).
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from analysis.diagnose.registry import offered
from trainables.api import Family
from trainables.errors import UnknownFamily, shortened, shown
from trainables.files import read_fields
from trainables.given.module import called, register
from trainables.registry import get_family
from trainables.trust import check_trusted, trust, trust_signed
from tune_rh.errors import PlanError
from tune_rh.plan.kinds import Comparison, Race, Search, kind_of
from tune_rh.plan.rules import LIVE_RULES, HealthBound
from tune_rh.plan.schema import Plan

_MOST_LINES, _DEEPEST = 15, 50
SHIPPED = Path(__file__).parent / "shipped"


def find_plan(path: str) -> Path:
    """The file called ``path``, or the plan of that name that ships with tune-rh."""
    if Path(path).is_file():
        return Path(path)
    if path in shipped():
        return shipped()[path]
    names = ", ".join(shipped())
    what = "is no regular file" if os.path.exists(path) else "no such file"
    raise PlanError(f"plan {path!r}: {what}; plans that ship: {names}")


def shipped() -> dict[str, Path]:
    """The plans that ship, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"), key=lambda path: path.stem)}


def load_plan(path: Path, overrides: Sequence[str] = ()) -> Plan:
    """Read, override and resolve a plan. What it names from outside is trusted, unless it is that of somebody's run.

    Args:
        path: a TOML file.
        overrides: ``key=value`` with dots for nesting and indices for lists (``stages.0.until_step=500``).

    Raises:
        PlanError: naming every wrong field with its value and what is allowed.
        trainables.errors.Untrusted: it lies in the folder of another user's run, and names code from outside.
    """
    register(path.parent)
    fields = _read(path)
    for text in overrides:
        override(fields, text)
    plan = _validate(fields, str(path))
    if (path.parent / "journal.jsonl").exists():
        _trust_own(path, plan)
        check_trusted(plan.from_outside)
    return _resolve(plan, str(path))


def load_frozen(path: Path) -> Plan:
    """Read the resolved plan of a run as it was frozen; its family need not be there.

    Raises:
        PlanError: naming every wrong field with its value and what is allowed.
    """
    register(path.parent)
    plan = _validate(_read(path), str(path))
    if not plan.objective or plan.diagnose is None:
        raise PlanError(f"{path}: is not the resolved plan of a run: it lacks objective or diagnose")
    _trust_own(path, plan)
    return plan


def _trust_own(path: Path, plan: Plan) -> None:
    """Trust what the plan of a run names from outside if this user made the run."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        trust_signed(plan.from_outside, json.loads((path.parent / "provenance.json").read_bytes())["signature"])


def check_keywords(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `PlanError` if a keyword is not ``known``, with the one that is nearest to it."""
    names = sorted({*known} - {"options", "kind"})
    for keyword in given:
        if keyword not in names:
            near = get_close_matches(keyword, names, 1)
            raise PlanError(f"{keyword}=: there is no such keyword" + (f"; is {near[0]}= meant?" if near else ""))


def resolve_plan(fields: dict[str, Any], where: str = "plan") -> Plan:
    """Validate ``fields`` and fill objective, mode and default health bounds from the family."""
    return _resolve(_validate(fields, where), where)


def _resolve(plan: Plan, where: str) -> Plan:
    trust(*plan.from_outside)
    try:
        family = get_family(plan.family)
        diagnostics = offered(plan.family)
    except UnknownFamily as error:
        raise PlanError(f"{where}: {error}") from error
    problems = [*_check_family(plan, family), *_check_live(plan, family), *_check_diagnostics(plan, diagnostics)]
    if problems:
        raise PlanError("\n".join(f"{where}: {problem}" for problem in problems))
    health = plan.rules.live.bounds(plan.rules.health, _bounds(family))
    return plan.model_copy(
        update={
            "objective": family.objective.name,
            "mode": family.objective.mode,
            "diagnose": _diagnose(plan, diagnostics),
            "rules": plan.rules.model_copy(update={"health": health}),
        }
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_fields(path, tomllib.loads)
    except ValueError as error:
        raise PlanError(f"{path}: cannot be read as TOML: {error}") from error


def _validate(fields: dict[str, Any], where: str) -> Plan:
    """The plan of ``fields``, as far as it can be checked without its family."""
    problems = _unwritable(fields)
    if problems:
        raise PlanError("\n".join(f"{where}: {problem}" for problem in problems))
    kind = kind_of(fields)
    try:
        return kind.model_validate_json(json.dumps(fields, default=_not_json))
    except ValidationError as error:
        raise PlanError(explain(error, where, kind)) from error


def _diagnose(plan: Plan, names: tuple[str, ...]) -> tuple[str, ...]:
    """What looks at members that reach the last stage: as the plan says, else all there are; none in a comparison."""
    chosen = names if plan.diagnose is None and plan.diagnoses_all else plan.diagnose or ()
    return tuple(name for name in names if name in {*chosen, *plan.require})


def _check_diagnostics(plan: Plan, diagnostics: tuple[str, ...]) -> list[str]:
    known = ", ".join(diagnostics) or "none"
    return [
        f"{field}: {name!r} is no diagnostic of {called(plan.family)}; known: {known}"
        for field, names in (("diagnose", plan.diagnose or ()), ("require", plan.require))
        for name in names
        if name not in diagnostics
    ]


def _check_family(plan: Plan, family: Family) -> list[str]:
    problems, whose = list[str](), called(plan.family)
    if plan.objective not in ("", family.objective.name):
        problems.append(f"objective = {plan.objective!r}: {whose} is judged by {family.objective.name!r}")
    if "mode" in plan.model_fields_set and plan.mode != family.objective.mode:
        problems.append(f"mode = {plan.mode!r}: {family.objective.name} of {whose} is {family.objective.mode!r}")
    known = ", ".join(sorted(family.presets))
    names = [name for name, _ in plan.named]
    made_from = [plan.configs[name].preset if name in plan.configs else name for name in names]
    made_from += [variant.preset for variant in plan.configs.values()]
    problems += [
        f"preset {preset!r}: {whose} has no such preset; known: {known}"
        for preset in dict.fromkeys(made_from)
        if preset is not None and preset not in family.presets
    ]
    metrics = {m.name for m in family.metrics}
    problems += [
        f"rules: metric {name!r} is not reported by {whose}; known: {', '.join(sorted(metrics))}"
        for name in _metrics(plan)
        if name not in metrics
    ]
    return problems


def _check_live(plan: Plan, family: Family) -> list[str]:
    """Rules of live health that do not exist."""
    live, of_family = plan.rules.live, _bounds(family)
    bounds = plan.rules.health or of_family
    # The plan of a run holds its bounds without those that are off, and still says which are.
    known = {"stop": [*LIVE_RULES, *_ids(bounds)], "off": [*LIVE_RULES, *_ids((*of_family, *bounds))]}
    return [
        f"rules.live.{field}.{i} = {name!r}: known: {', '.join(dict.fromkeys(known[field]))}"
        for field, names in (("stop", live.stop), ("off", live.off))
        for i, name in enumerate(names)
        if name not in known[field]
    ]


def _ids(bounds: Iterable[HealthBound]) -> list[str]:
    return [bound.id for bound in bounds if bound.id]


def _bounds(family: Family) -> tuple[HealthBound, ...]:
    try:
        return tuple(HealthBound(**asdict(check)) for check in family.health)
    except ValidationError as error:
        raise PlanError(explain(error, f"health of family {family.name}")) from error


def metrics_named(fields: dict[str, Any], where: str) -> list[str]:
    """Every metric that the rules of a plan name; raises `PlanError` where the plan is none whatever its family."""
    return _metrics(_validate(fields, where))


def _metrics(plan: Plan) -> list[str]:
    """Every metric that a rule names."""
    rules, promote = plan.rules, plan.gate(0).promote
    named = [bound.metric for bound in rules.health]
    named += [wanted.metric for wanted in (promote.healthier if promote else ())]
    named += [wanted.metric for wanted in (rules.stop.unless if rules.stop else ())]
    return named


def explain(error: ValidationError, where: str, model: type[BaseModel] | None = None) -> str:
    """One line a mistake: field, value got, what is allowed; a key of ``model`` that is spelled much the same."""
    lines = [f"{where}: {line}" for _, line in mistakes(error, model)]
    more = [f"{where}: and {len(lines) - _MOST_LINES} mistakes more"] if len(lines) > _MOST_LINES else []
    return "\n".join((*lines[:_MOST_LINES], *more))


def mistakes(error: ValidationError, model: type[BaseModel] | None = None) -> Iterator[tuple[ErrorDetails, str]]:
    """Each mistake as pydantic has it, and in words."""
    places = [item["loc"] for item in error.errors()]
    for item in error.errors():
        within = len(item["loc"])
        if item["type"] == "too_short" and any(len(loc) > within and loc[:within] == item["loc"] for loc in places):
            continue  # what is wrong with the only item is said: it is there
        field = ".".join(shortened(str(part), 80) for part in item["loc"])
        value = item.get("input")
        if item["type"] == "extra_forbidden":
            yield item, _unknown(field, value, model)
        elif item["type"] == "missing":
            yield item, f"{field}: missing, and has no default"
        elif item["type"] == "value_error":
            message = item["msg"].removeprefix("Value error, ")
            got = f" = {shown(value)}" if isinstance(value, str | int | float) else ""
            yield item, f"{field + got + ': ' if field else ''}{message}"
        else:
            yield item, f"{field} = {shown(value)}: {item['msg']}"


def _unknown(field: str, value: object, model: type[BaseModel] | None) -> str:
    key = field.rpartition(".")[2]
    if model in (Race, Comparison) and key in _keys(Search):
        return f"{field} = {shown(value)}: is of a search; a race or a comparison has none"
    close = get_close_matches(key, _keys(model), 1) if model else []
    return f"{field} = {shown(value)}: there is no such key" + (f"; is {close[0]!r} meant?" if close else "")


def _keys(model: type[BaseModel]) -> list[str]:
    """The names of all fields of a model and of the models in it."""
    schema = model.model_json_schema()
    return [name for part in (schema, *schema.get("$defs", {}).values()) for name in part.get("properties", {})]


def override(fields: dict[str, Any], text: str) -> None:
    """Apply one ``key=value`` to the fields of a plan; raises PlanError if it has no such place."""
    key, equals, word = text.partition("=")
    if not equals or not key:
        raise PlanError(f"--set {text!r}: expected key=value")
    try:
        value = tomllib.loads(f"value = {word}")["value"]
    except tomllib.TOMLDecodeError:
        value = word
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise PlanError(f"--set {shown(text)}: cannot be read: {error}") from error
    node: Any = fields
    *parents, leaf = key.split(".")
    if len(parents) > _DEEPEST:
        raise PlanError(f"--set {shown(text)}: has {len(parents)} dots; a plan is at most {_DEEPEST} levels deep")
    for depth, part in enumerate(parents):
        try:
            node = node[_index(part)] if isinstance(node, list) else node.setdefault(part, {})
        except (ValueError, IndexError, AttributeError) as error:
            raise PlanError(f"--set {text!r}: {'.'.join(parents[: depth + 1])} is not in the plan") from error
    if isinstance(node, list):
        if not leaf.isdecimal() or int(leaf) > len(node):
            raise PlanError(f"--set {text!r}: index {leaf!r} is not in 0..{len(node)} ({len(node)} adds one)")
        node[int(leaf) : int(leaf) + 1] = [value]
    elif isinstance(node, dict):
        node[leaf] = value
    else:
        raise PlanError(f"--set {text!r}: {'.'.join(parents)} is a value and has no key {leaf!r}")


def _index(part: str) -> int:
    if not part.isdecimal():
        raise ValueError(f"{part!r} is no index")
    return int(part)


def _unwritable(value: Any, field: str = "") -> list[str]:
    """A line for each NaN, each infinity outside of config fields, and each text that is none, such as a stray byte."""
    if field.count(".") > _DEEPEST:
        return [f"{shortened(field, 80)}: a plan is at most {_DEEPEST} levels deep"]
    if not all(map(_is_text, (field, *((value,) if isinstance(value, str) else ())))):
        return [f"{field} = {shown(value)}: is no text that UTF-8 can write"]
    if isinstance(value, dict):
        items = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list):
        items = [(str(i), inner) for i, inner in enumerate(value)]
    elif isinstance(value, float) and (math.isnan(value) or (math.isinf(value) and not _in_config(field))):
        return [f"{field} = {value!r}: numbers in a plan are finite"]
    else:
        return []
    return [line for key, inner in items for line in _unwritable(inner, f"{field}.{key}" if field else key)]


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_config(field: str) -> bool:
    """Whether the place ``field`` of a plan is inside a field of a config."""
    return re.match(r"fixed\.|configs\..+\.fields\.|follow_ups\.\d+\.changes\.", field) is not None


def _not_json(value: Any) -> Any:
    raise PlanError(f"value {value!r}: dates and times have no place in a plan")
