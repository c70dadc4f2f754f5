"""Spaces by family and name, as `trainables.api.Family.spaces` names them, and which presets a space can draw."""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.api import Space
from trainables.errors import UnknownFamily
from trainables.registry import get_part, resolve


class UnknownSpace(LookupError):
    """No space has that name."""


def spaces_of(family: str) -> Mapping[str, Space]:
    """The spaces of a family by name; none if it names none.

    Raises:
        UnknownFamily: there is no such family, or its spaces cannot be imported.
    """
    return get_part(family, "spaces") or {}


def get_space(family: str, name: str) -> Space:
    """The space ``name`` of ``family``; ``"module:attr"`` names a `Space` of your own.

    Raises:
        UnknownSpace: with the names there are.
    """
    if ":" in name:
        try:
            space = resolve(name)
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
