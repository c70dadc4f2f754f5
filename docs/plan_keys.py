"""The page of all keys of a plan, made from the models that read it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from ship import table

from tune_rh.plan.kinds import Comparison, Race, Search

_KINDS = {"A search": Search, "A race": Race, "A comparison": Comparison}
_BOUNDS = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}
_PLAIN = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
_NONE = 10**12
"""From here on a bound only keeps numbers finite."""
Schema = Mapping[str, Any]


def plan_keys() -> str:
    """The page in Markdown."""
    schemas = {title: kind.model_json_schema() for title, kind in _KINDS.items()}
    keys = [schema["properties"] for schema in schemas.values()]
    common = [key for key in keys[0] if all(other.get(key) == keys[0][key] for other in keys)]
    lines = ["# Every key of a plan", "", "[The plan file](../plan.md) shows them at work.", "", "## Every plan", ""]
    lines += _section(Search, schemas["A search"], common)
    for title, kind in _KINDS.items():
        own = [key for key in schemas[title]["properties"] if key not in common]
        lines += [f"## {title}", "", *_section(kind, schemas[title], own)]
    parts = {name: part for kind in schemas.values() for name, part in kind.get("$defs", {}).items()}
    models = {model.__name__: model for kind in _KINDS.values() for model in _models(kind)}
    for name, title in _titles(schemas).items():
        part = parts[name]
        what = (part.get("description") or "").partition("\n\n")[0].replace("\n", " ")
        lines += [f"({name.lower()})=", f"## {title}", "", what, ""]
        lines += _section(models[name], part, list(part["properties"]))
    return "\n".join(lines) + "\n"


def _titles(schemas: Mapping[str, Schema]) -> dict[str, str]:
    """Of each table inside a plan, as a file has its heading; and in which kinds of plan, where it is not in all."""
    paths: dict[str, dict[str, str]] = {}
    for title, kind in schemas.items():
        for name, path in _paths(kind, kind["properties"], ""):
            paths.setdefault(name, {}).setdefault(title, path)
    titles = {}
    for name, found in sorted(paths.items(), key=lambda item: next(iter(item[1].values())).strip("[]")):
        where = "" if len(found) == len(schemas) else " of " + " and ".join(kind.lower() for kind in found)
        titles[name] = f"`{next(iter(found.values()))}`{where}"
    return titles


def _paths(kind: Schema, properties: Schema, above: str) -> Iterator[tuple[str, str]]:
    """The name of each table's model with its heading, outer tables first."""
    for key, part in properties.items():
        for inner in part.get("anyOf", [part]):
            many, named = inner.get("items"), inner.get("additionalProperties")
            held = many if isinstance(many, dict) else named if isinstance(named, dict) else inner
            if "$ref" in held:
                name = held["$ref"].rpartition("/")[2]
                path = f"{above}{key}" + (".NAME" if held is named else "")
                yield name, f"[[{path}]]" if held is many else f"[{path}]"
                yield from _paths(kind, kind["$defs"][name]["properties"], f"{path}.")


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and all models that its fields hold."""
    yield model
    for field in model.model_fields.values():
        for inner in _within(field.annotation):
            yield from _models(inner)


def _within(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _within(argument)


def _section(model: type[BaseModel], schema: Schema, keys: list[str]) -> list[str]:
    told, needed = _attributes(model), schema.get("required", ())
    rows = []
    for key in keys:
        part = schema["properties"][key]
        default = "required" if key in needed else _code(part.get("default")) if "default" in part else "-"
        rows.append((f"`{key}`", _allowed(part), default, told.get(key, "")))
    return table(("key", "allowed", "default", "what it does"), rows)


def _code(value: Any) -> str:
    return "-" if value is None or isinstance(value, dict) else f"`{json.dumps(value)}`"


def _allowed(part: Schema) -> str:
    """In words what a value may be."""
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return f"a [table](#{name.lower()})"
    if "anyOf" in part:
        return " or ".join(_allowed(one) for one in part["anyOf"] if one.get("type") != "null")
    if "enum" in part or "const" in part:
        return " or ".join(map(_code, part.get("enum", [part.get("const")])))
    kind = part.get("type")
    if kind == "array":
        items = part.get("items") or next(iter(part.get("prefixItems", [{}])))
        return f"a list of {_plural(_allowed(items))}"
    if kind == "object":
        inner = part.get("additionalProperties")
        return f"by name: {_plural(_allowed(inner))}" if isinstance(inner, dict) else "a table"
    bounds = [f"{word} {part[bound]:,}" for bound, word in _BOUNDS.items() if part.get(bound, _NONE) < _NONE]
    return ", ".join([_PLAIN.get(kind or "", "any value"), *bounds])


def _plural(allowed: str) -> str:
    """Of what a list or a table holds."""
    return re.sub(r"^(?:a )?(\[?table|text|.*?number)", r"\1s", allowed)


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a model and its bases say of each field."""
    told: dict[str, str] = {}
    for base in model.__mro__:
        section = re.search(r"\nAttributes:\n((?:    .*\n|\n)+)", f"{inspect.getdoc(base) or ''}\n")
        if base.__module__.startswith("tune_rh") and section:
            for entry in re.split(r"\n(?=    \S)", section[1].rstrip()):
                names, _, text = entry.partition(":")
                for name in names.split(","):
                    told.setdefault(name.strip(), " ".join(text.split()))
    return told
