"""Spaces by family and name. A new family's spaces are one file here and one line below."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from search_spaces.api import Space

TABLES: dict[str, str] = {
    "shared_moe": "search_spaces.shared_moe:SPACES",
    "spacing_mdn": "search_spaces.spacing_mdn:SPACES",
}


class UnknownSpace(LookupError):
    """No space has that name."""


def spaces_of(family: str) -> Mapping[str, Space]:
    """The spaces of a family that has a table here, by name."""
    module, _, attribute = TABLES[family].partition(":")
    table: Mapping[str, Space] = getattr(import_module(module), attribute)
    return table


def get_space(family: str, name: str) -> Space:
    """The space ``name`` of ``family``; ``"module:attr"`` names a `Space` of your own."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            space = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UnknownSpace(f"space = {name!r}: cannot be imported ({error})") from error
        if not isinstance(space, Space):
            raise UnknownSpace(f"space = {name!r}: is a {type(space).__name__}, not a search_spaces.api.Space")
        return space
    if family not in TABLES:
        raise UnknownSpace(f"space = {name!r}: family {family!r} has no spaces here; give 'module:attr'")
    table = spaces_of(family)
    if name not in table:
        raise UnknownSpace(f"space = {name!r}: {family} has no such space; known: {', '.join(sorted(table))}")
    return table[name]
