"""Spaces by family and name, as `trainables.api.Family.spaces` names them, and which presets a space can draw."""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.api import Space
from trainables.errors import UnknownFamily, Untrusted
from trainables.registry import build_config, get_family, get_part, resolve_named


class UnknownSpace(LookupError):
    """No space has that name."""


def spaces_of(family: str) -> Mapping[str, Space]:
    """The spaces of a family by name; none if it names none. Raises `UnknownFamily` if they cannot be imported."""
    spaces = get_part(family, "spaces") or {}
    if not isinstance(spaces, Mapping) or not all(isinstance(space, Space) for space in spaces.values()):
        reference = get_family(family).spaces
        raise UnknownFamily(f"family {family}: spaces = {reference!r}: is no mapping of names to spaces")
    return spaces


def get_space(family: str, name: str) -> Space:
    """The space ``name`` of ``family``, or the `Space` of your own at ``"module:attr"``; raises `UnknownSpace`."""
    if ":" in name:
        try:
            space = resolve_named(name)
        except Untrusted as error:
            raise UnknownSpace(f"space = {error}") from error
        except (ImportError, AttributeError) as error:
            raise UnknownSpace(f"space = {name!r}: cannot be imported ({error})") from error
        if not isinstance(space, Space):
            raise UnknownSpace(f"space = {name!r}: is a {type(space).__name__}, not a search_spaces.api.Space")
        return space
    try:
        spaces = spaces_of(family)
    except UnknownFamily as error:
        raise UnknownSpace(f"space = {name!r}: {error}") from error
    if not spaces:
        raise UnknownSpace(f"space = {name!r}: family {family!r} has no spaces; give 'module:attr'")
    if name not in spaces:
        raise UnknownSpace(f"space = {name!r}: {family} has no such space; known: {', '.join(sorted(spaces))}")
    return spaces[name]


def outside(family: str, space: Space) -> dict[str, str]:
    """Presets of a family that no draw from a space gives, each with the first field in the way.

    The reason names the field, the preset's value, and what the space allows, or what it would have drawn.
    """
    presets = get_family(family).presets
    reasons = {preset: _why_outside(family, space, preset) for preset in presets}
    return {preset: reason for preset, reason in reasons.items() if reason}


def _why_outside(family: str, space: Space, preset: str) -> str:
    """Empty for a preset that the space can draw."""
    try:
        wanted = build_config(get_family(family), preset=preset).model_dump()
        drawn, _ = space.replay(wanted)
        given = {**build_config(get_family(family), preset=space.base).model_dump(), **drawn}
    except ValueError as refused:  # outside of the space, or not even a config
        return " ".join(str(refused).split())
    different = (name for name in wanted if given[name] != wanted[name])
    return next((f"{name} = {wanted[name]!r}: the space has {given[name]!r}" for name in different), "")
