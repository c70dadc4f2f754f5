"""What a model may know: families whose models see unequal inputs say so, and wins are judged among equals.

A family names a function of a config (`trainables.api.Family.knowledge`) that says how much its model knows. Search,
report and export show it and compare it; what it means is the family's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trainables.errors import UnknownFamily
from trainables.registry import build_config, get_family, get_part


@dataclass(frozen=True)
class Knowledge:
    """How much a model may know.

    Attributes:
        level: classes with more know more.
        name: of the class, such as ``class II``.
        past: the longest past of any prediction, in the family's unit.
    """

    level: int
    name: str
    past: int

    def __str__(self) -> str:
        return f"{self.name}, past {self.past:,}"

    def covers(self, other: Knowledge) -> bool:
        """Whether who knows ``other`` knows nothing beyond this: no higher class and no longer past."""
        return other.level <= self.level and other.past <= self.past


def knowledge_of(family: str, fields: Mapping[str, Any]) -> Knowledge | None:
    """Of the config with ``fields`` as a journal has them; None where the family or this version of it cannot tell."""
    with suppress(UnknownFamily, ValueError):
        function = get_part(family, "knowledge")
        if function is not None:
            found: Knowledge = function(build_config(get_family(family), written=[fields]))
            return found
    return None


def span(known: Iterable[Knowledge | None]) -> str:
    """All classes that occur, lowest first, as ``class I to class III, past 32 to 4,096``; empty if none does."""
    found = [one for one in known if one is not None]
    if not found:
        return ""
    names = list(dict.fromkeys(one.name for one in sorted(found, key=lambda one: one.level)))
    pasts = sorted({one.past for one in found})
    low_to_high = [f"{names[0]} to {names[-1]}" if names[1:] else names[0]]
    low_to_high.append(f"past {pasts[0]:,} to {pasts[-1]:,}" if pasts[1:] else f"past {pasts[0]:,}")
    return ", ".join(low_to_high)
