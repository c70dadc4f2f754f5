"""The config class of a family that was made from Python objects: from a dict, a dataclass or a pydantic model.

Its fields are those of the base and the names that the space draws; a task gets the same kind back.
"""

from __future__ import annotations

import dataclasses
import keyword
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar, Union, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model, model_validator

from trainables.config import FrozenConfig, first_mistake

_EMPTY: Mapping[str, Sequence[Any]] = {}


class GivenConfig(FrozenConfig):
    """The fields of a config as the project holds them; `handed` is what its task gets."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    base: ClassVar[Any] = {}
    optional: ClassVar[frozenset[str]] = frozenset()

    def handed(self) -> Any:
        """These values as an object of the same kind as ``base``; raises what that class raises."""
        values = {name: deepcopy(getattr(self, name)) for name in type(self).model_fields}
        if isinstance(self.base, Mapping):
            return {name: value for name, value in values.items() if value is not None or name not in self.optional}
        if isinstance(self.base, BaseModel):
            return type(self.base).model_validate(values)
        return dataclasses.replace(self.base, **values)

    @model_validator(mode="after")
    def _as_handed(self) -> GivenConfig:
        try:
            self.handed()
        except ValidationError as error:
            raise ValueError(first_mistake(error)) from error
        return self


def config_class(title: str, module: str, base: Any, drawn: Mapping[str, Sequence[Any]] = _EMPTY) -> type[GivenConfig]:
    """The config class for values like those of ``base`` and those that a space draws.

    Args:
        title: what errors call the class.
        module: that it is found in.
        base: a mapping, a dataclass or a pydantic model.
        drawn: examples of what is drawn for each field.

    Raises:
        ValueError: naming the field that cannot be one, and what is allowed.
    """
    values, declared = _values(base), _declared(base)
    for name in (*values, *drawn):
        _check_name(name)
    if not isinstance(base, Mapping):
        strange = next((name for name in drawn if name not in values), None)
        if strange is not None:
            raise ValueError(f"{strange}: is drawn, and {type(base).__name__} has no such field")
    fields: dict[str, Any] = {}
    for name in dict.fromkeys((*values, *drawn)):
        examples = [*([values[name]] if name in values else [None]), *drawn.get(name, ())]
        fields[name] = (declared.get(name) or _annotation(examples), values.get(name))
    made = create_model(title, __base__=GivenConfig, __module__=module, **fields)
    made.base = base
    # A name that the base lacks is left out where it is not drawn, unless None is one of its values.
    made.optional = frozenset(name for name in drawn if name not in values and None not in drawn[name])
    return made


def _values(base: Any) -> dict[str, Any]:
    if isinstance(base, Mapping):
        return dict(base)
    if isinstance(base, BaseModel):
        return {name: getattr(base, name) for name in type(base).model_fields}
    if dataclasses.is_dataclass(base) and not isinstance(base, type):
        return {field.name: getattr(base, field.name) for field in dataclasses.fields(base) if field.init}
    raise ValueError(
        f"is a {type(base).__name__}: allowed are a dict, a dataclass or a pydantic model, with its values"
    )


def _declared(base: Any) -> Mapping[str, Any]:
    if isinstance(base, BaseModel):
        return {name: field.annotation for name, field in type(base).model_fields.items()}
    if isinstance(base, Mapping):
        return {}
    try:
        return get_type_hints(type(base))
    except (NameError, TypeError, AttributeError):  # of names that its module cannot see: values say enough
        return {}


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise ValueError(f"{name!r}: a field's name is that of a Python variable, without an underscore in front")
    if hasattr(GivenConfig, name):
        raise ValueError(f"{name}: is a name of pydantic's or of tune-rh's own; choose another")


def _annotation(values: Iterable[Any]) -> Any:
    """The type of all ``values``."""
    kinds = tuple(dict.fromkeys(map(_kind, values)))
    return Union[kinds] if kinds else Any  # noqa: UP007 - of types that are known only now


def _kind(value: Any) -> Any:
    kind: Any = type(value)
    if kind is tuple:
        return tuple[_annotation(value), ...]  # type: ignore[misc]
    if kind in (list, set, frozenset):
        return kind[_annotation(value)]
    if kind is dict:
        return dict[str, Any]
    return kind
