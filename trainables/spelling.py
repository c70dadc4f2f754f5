"""How a config is written down: plain fields that JSON and TOML can hold, and that give the same config back.

JSON has no infinity and no NaN, TOML no None; both lose tuples, sets, enums and models. So a number that is not finite
and, in TOML, None are words (``"@inf"``, ``"@none"``), text that looks like a word begins with ``"@text:"``, sets are
sorted, and a config is read field by field as its class declares them. Journal, plan, export and job all go this way.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import InitErrorDetails, PydanticCustomError

NONE = "@none"
_TEXT = "@text:"
_NUMBERS = {"@inf": math.inf, "@-inf": -math.inf, "@nan": math.nan}
_WORDS: Mapping[str, float | None] = {NONE: None, **_NUMBERS}
_LOOKS_LIKE_NONE = {"none", "null", "nil"}


def spelt(config: BaseModel, *, only: str | None = None) -> dict[str, Any]:
    """The fields of a config as JSON holds them: strict JSON, None included; the same in every process."""
    names = set(type(config).model_fields) if only is None else {only}
    dumped, values = config.model_dump(mode="json", include=names), config.model_dump(include=names)
    return {name: _spelt(dumped[name], values[name]) for name in dumped}


def spelt_value(value: Any) -> Any:
    """A value of plain Python (what JSON holds, and numbers that are not finite) as `spelt` writes it."""
    return _spelt(value, value)


def for_toml(fields: Any) -> Any:
    """Written fields as TOML holds them: None is a word; so is a number that is not finite, wherever it came from."""
    if isinstance(fields, Mapping):
        return {key: for_toml(value) for key, value in fields.items()}
    if isinstance(fields, list | tuple):
        return [for_toml(value) for value in fields]
    return NONE if fields is None else _word(fields)


def meant(written: Any) -> Any:
    """What a written value means in plain Python; the inverse of `spelt_value` and `for_toml`."""
    if isinstance(written, Mapping):
        return {key: meant(value) for key, value in written.items()}
    if isinstance(written, list | tuple):
        return [meant(value) for value in written]
    if not isinstance(written, str):
        return written
    return _WORDS[written] if written in _WORDS else written.removeprefix(_TEXT)


def read_config(model: type[BaseModel], written: Mapping[str, Any], over: Mapping[str, Any] = {}) -> Any:
    """The config of written fields, laid over ``over``, which are values of Python; raises pydantic.ValidationError."""
    values, refused = dict(over), dict[str, ValidationError]()
    for name, value in written.items():
        values[name] = plain = meant(value)
        if name in model.model_fields:
            try:
                values[name] = _reader(model, name).validate_json(json.dumps(plain))
            except TypeError:
                pass  # a date, which TOML has: as it is
            except ValidationError as error:
                refused[name] = error  # the model decides: it may have a validator of its own that takes the value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explained(error, refused) if refused else error from None


def ambiguous(model: type[BaseModel], written: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each text that looks like None where the field takes None and any text: the field, with dots, and the text."""
    for name, value in written.items():
        for path, text in _texts(value):
            if name in model.model_fields and _looks_like_none(text):
                others = (_replaced(value, path, other) for other in (None, f"not {text}"))
                if all(_accepts(model, name, meant(other)) for other in others):
                    yield ".".join((name, *map(str, path))), text


def equal(a: Any, b: Any) -> bool:
    """Whether two values are the same, types included; NaN equals NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, BaseModel):
        return equal(dict(a), dict(b))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(equal(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b) or (a != a and b != b)


def _spelt(dumped: Any, value: Any) -> Any:
    """``dumped`` is pydantic's JSON form of ``value``, in the same order."""
    if isinstance(dumped, dict):
        inside = value.values() if isinstance(value, Mapping) else dumped.values()
        return {key: _spelt(inner, of) for (key, inner), of in zip(dumped.items(), inside, strict=True)}
    if isinstance(dumped, list | tuple):
        values = value if isinstance(value, Set | Sequence) and len(value) == len(dumped) else dumped
        items = [_spelt(inner, of) for inner, of in zip(dumped, values, strict=True)]
        # A set of text has another order in each process.
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True)) if isinstance(value, Set) else items
    if isinstance(dumped, str) and (dumped in _WORDS or dumped.startswith(_TEXT)):
        return _TEXT + dumped
    # Pydantic writes null for a number that is not finite wherever a field is declared as Any.
    return _word(value if isinstance(value, float) else dumped)


def _word(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "@nan" if math.isnan(value) else "@inf" if value > 0 else "@-inf"


@lru_cache(maxsize=4096)
def _reader(model: type[BaseModel], name: str) -> TypeAdapter[Any]:
    """Reads the JSON of one field, strictly: a list is a tuple or a set where the field is one, text an enum."""
    field = model.model_fields[name]
    declared: Any = Annotated[field.annotation, field]
    try:
        return TypeAdapter(declared, config=ConfigDict(**{**model.model_config, "strict": True}))
    except PydanticUserError:  # a model or dataclass has its own
        return TypeAdapter(declared)


def _accepts(model: type[BaseModel], name: str, value: Any) -> bool:
    try:
        _reader(model, name).validate_json(json.dumps(value))
    except ValidationError:
        return False
    return True


def _explained(error: ValidationError, refused: Mapping[str, ValidationError]) -> ValidationError:
    """``error`` with what a field's own reader says in place of "should be a tuple", where a list was read as one."""
    lines: list[InitErrorDetails] = []
    said = set[str]()
    for item in error.errors(include_url=False):
        name = str(item["loc"][0]) if item["loc"] else ""
        if name not in refused:
            lines.append(_line(item, item["loc"]))
        elif name not in said:
            said.add(name)
            lines += [_line(inner, (name, *inner["loc"])) for inner in refused[name].errors(include_url=False)]
    return ValidationError.from_exception_data(error.title, lines)


def _line(item: Any, loc: tuple[int | str, ...]) -> InitErrorDetails:
    hint = f'; None is written "{NONE}"' if _looks_like_none(item["input"]) else ""
    kind = PydanticCustomError(item["type"], "{text}", {"text": item["msg"] + hint})
    return InitErrorDetails(type=kind, loc=loc, input=item["input"])


def _looks_like_none(value: object) -> bool:
    """Whether a value is text as people write None."""
    return isinstance(value, str) and value.lower() in _LOOKS_LIKE_NONE


def _texts(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _texts(inner, (*path, key))


def _replaced(value: Any, path: tuple[str | int, ...], by: Any) -> Any:
    if not path:
        return by
    first, *rest = path
    copy = value.copy()
    copy[first] = _replaced(value[first], tuple(rest), by)
    return copy
