"""Families by name, one line each, and the parts that a family names, imported when they are asked for."""

from __future__ import annotations

import reprlib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any

from trainables.api import Family
from trainables.errors import UnknownFamily, Untrusted
from trainables.trust import check_trusted

FAMILIES: dict[str, str] = {
    "equilibrium": "trainables.equilibrium:FAMILY",
    "nsa": "trainables.nsa:FAMILY",
    "shared_moe": "trainables.shared_moe:FAMILY",
    "spacing_mdn": "trainables.spacing_mdn:FAMILY",
}

_sound: dict[str, Family] = {}
"""Families from outside that were looked at."""

OPTIONAL = (
    "model",
    "spaces",
    "sample",
    "baselines",
    "diagnostics",
    "extraction",
    "preflight",
    "causal",
    "knowledge",
)
"""Parts that a family may leave out."""


def resolve_named(reference: str) -> Any:
    """As `resolve`, for a reference out of a file.

    Raises:
        Untrusted: its module is neither imported yet nor one that was named to `trust`.
    """
    check_trusted((reference,))
    return resolve(reference)


def resolve(reference: str) -> Any:
    """Import ``"module:attr"`` and return the attribute.

    Raises:
        ImportError: it is not of that form, or the module is not there, or fails as it is imported.
        AttributeError: it has no such attribute.
    """
    name, _, attribute = reference.partition(":")
    if not all(part.isidentifier() for part in (*name.split("."), attribute)):
        raise ImportError(f"{reference!r} is not of the form 'module:attr'")
    try:
        module = import_module(name)
    except ImportError:
        raise
    except (Exception, SystemExit) as error:
        raise ImportError(_told(error)) from error
    return getattr(module, attribute)


def _told(error: BaseException) -> str:
    """The first line of what a module raised as it was imported, and where in code that is no library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and not frame.filename.startswith("<")]
    said = traceback.format_exception_only(error)[-1].strip().partition("\n")[0]
    return f"{said}, {own[-1].filename}:{own[-1].lineno}" if own else said


def get_family(name: str) -> Family:
    """The family called ``name``; ``"module:attr"`` names one of your own, importable where the search runs.

    Raises:
        UnknownFamily: with the names there are; `Untrusted` for one from outside that `is_trusted` does not know.
    """
    if ":" in name:
        try:
            own = resolve_named(name)
        except Untrusted as error:
            raise Untrusted(f"family = {error}") from error
        except (ImportError, AttributeError) as error:
            raise UnknownFamily(
                f"family = {name!r}: cannot be imported ({error}); it is looked for here and on PYTHONPATH"
            ) from error
        if not isinstance(own, Family):
            raise UnknownFamily(f"family = {name!r}: is a {type(own).__name__}, not a trainables.api.Family")
        if _sound.get(name) is not own:
            problems = [f"family {name}: {line}" for line in _mistyped(own)]
            if problems:
                raise UnknownFamily("\n".join(problems))
            _sound[name] = own
        return own
    if name not in FAMILIES:
        raise UnknownFamily(f"family = {name!r}: there is no such family; known: {', '.join(sorted(FAMILIES))}")
    family = resolve(FAMILIES[name])
    assert isinstance(family, Family)
    return family


def dataset_of(family: Family, config: Any) -> str:
    """The name of the data set that a config of ``family`` is trained on."""
    return family.dataset or str(config.data)


def _mistyped(family: Family) -> list[str]:
    """What of a family, a plain dataclass that anybody fills, has another type than it declares."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(Family).validate_python(asdict(family))
    except ValidationError as error:
        return [
            f"{'.'.join(map(str, item['loc']))} = {reprlib.repr(item['input'])}: {item['msg']}"
            for item in error.errors()
        ]
    return []


def get_part(family: str, part: str) -> Any | None:
    """What a family names as its ``part``, such as ``sample``; None where it leaves out an `OPTIONAL` one.

    Raises `UnknownFamily` where what it names cannot be imported.
    """
    reference: str = getattr(get_family(family), part)
    if not reference and part in OPTIONAL:
        return None
    try:
        return resolve(reference)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownFamily(f"family {family}: {part} = {reference!r}: cannot be imported ({error})") from error


def build_config(
    family: Family, *overrides: Any, preset: str | None = None, written: Sequence[Mapping[str, Any]] = ()
) -> Any:
    """The resolved config of ``family``: defaults, then the preset, then each mapping of ``overrides`` in order.

    Args:
        family: whose config.
        overrides: fields as Python has them.
        preset: the name of one.
        written: fields as a journal, a plan or an export has them (`trainables.spelling`), laid over the rest in order.

    Raises:
        UnknownFamily: no preset has that name.
        pydantic.ValidationError: a field is unknown, mistyped or out of range.
    """
    if preset is not None and preset not in family.presets:
        raise UnknownFamily(
            f"preset = {preset!r}: {family.name} has no such preset; known: {', '.join(sorted(family.presets))}"
        )
    fields: dict[str, Any] = dict(family.presets[preset]) if preset is not None else {}
    for override in overrides:
        fields.update(override)
    from trainables.spelling import read_config

    laid_over: dict[str, Any] = {}
    for mapping in written:
        laid_over.update(mapping)
    return read_config(resolve(family.config), laid_over, fields)
