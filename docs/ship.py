"""The page of the families that ship: presets and their sizes, spaces and their parameters, metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from search_spaces.parameters import parameters
from search_spaces.registry import spaces_of
from trainables.registry import FAMILIES, build_config, get_family, get_part


def families() -> str:
    """The page in Markdown."""
    return "\n".join(["# Families that ship", "", *(line for name in FAMILIES for line in _family(name))]) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    lines = [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in (head, *rows)]
    return [f"| {lines[0]} |", f"|{' --- |' * len(head)}", *(f"| {line} |" for line in lines[1:]), ""]


def _family(name: str) -> Iterator[str]:
    family, about = get_family(name), get_part(name, "preflight")
    yield from (f"## {name}", "", family.summary, "", "### Presets", "")
    sizes = {preset: about.footprint(build_config(family, preset=preset)).parameters for preset in family.presets}
    changes = {
        preset: ", ".join(f"`{key} = {value}`" for key, value in fields.items())
        for preset, fields in family.presets.items()
    }
    rows = [(f"`{preset}`", f"{sizes[preset]:,}", changes[preset] or "-") for preset in family.presets]
    yield from table(("preset", "parameters", "differs from the defaults by"), rows)
    for called, space in spaces_of(name).items():
        yield from (f"### Space {called}", "", f"{space.summary}; laid over `{space.base}`.", "")
        found = [(f"`{one.name}`", one.range, one.when or "always") for one in parameters(space)]
        yield from table(("parameter", "values", "asked where"), found)
    yield from ("### Metrics", "")
    metrics = [(f"`{one.name}`", one.mode, one.unit, one.description) for one in family.metrics]
    yield from table(("metric", "better", "unit", "what it is"), metrics)
