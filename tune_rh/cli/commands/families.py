"""Families of models that can be searched; with a name, its presets, spaces, parameters and metrics."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from rich.table import Table

from search_spaces.api import RandomTrial, Space
from search_spaces.parameters import parameters
from search_spaces.registry import outside, spaces_of
from trainables.api import Family, Preflight
from trainables.knowledge import knowledge_of, span
from trainables.registry import FAMILIES, build_config, get_family, get_part, resolve
from tune_rh.cli import terminal
from tune_rh.plan.file import explain
from tune_rh.record.failure import headline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", nargs="?", help="name of a family, or module:attr")


def run(args: argparse.Namespace) -> int:
    to = terminal.console()
    if args.family is None:
        table = Table("family", "what it is", "decided by")
        for name in FAMILIES:
            family = get_family(name)
            table.add_row(name, family.summary, f"{family.objective.name} ({family.objective.mode})")
        to.print(table)
        return 0
    family, spaces = get_family(args.family), spaces_of(args.family)
    to.print(f"{family.name}: {family.summary}", soft_wrap=True)
    to.print(_presets(args.family, family))
    if spaces:
        to.print(_spaces(args.family, family, spaces), _parameters(spaces))
    metrics = Table("metric", "better", "unit", "what it is", title="Metrics")
    for metric in family.metrics:
        metrics.add_row(metric.name, metric.mode, metric.unit, metric.description)
    to.print(metrics)
    return 0


def _presets(name: str, family: Family) -> Table:
    table = Table("preset", "differs from the defaults by", title="Presets")
    table.add_column("parameters", justify="right")
    if family.knowledge:
        table.add_column("may know")
    about = get_part(name, "preflight")
    for preset, fields in family.presets.items():
        changes = " ".join(f"{key}={value}" for key, value in fields.items()) or "-"
        knows = [str(knowledge_of(name, fields) or "-")] if family.knowledge else []
        table.add_row(preset, changes, _told(_count, family, preset, about), *knows)
    return table


def _spaces(name: str, family: Family, spaces: Mapping[str, Space]) -> Table:
    header = ("space", "what it varies", "laid over", "presets it can draw")
    table = Table(*header, *(["may know"] if family.knowledge else []), title="Spaces")
    for called, space in spaces.items():
        knows = [_told(_span, name, family, space)] if family.knowledge else []
        table.add_row(called, space.summary, space.base, _told(_drawable, name, family, space), *knows)
    return table


def _span(name: str, family: Family, space: Space) -> str:
    """What configs of a space may know, as seen in 64 random draws."""
    base = family.presets[space.base]
    return span(knowledge_of(name, {**base, **space.suggest(RandomTrial(seed))}) for seed in range(64))


def _drawable(name: str, family: Family, space: Space) -> str:
    beyond = outside(name, space)
    return " ".join(preset for preset in family.presets if preset not in beyond) or "-"


def _parameters(spaces: Mapping[str, Space]) -> Table:
    table = Table("space", "parameter", "values", "asked where", title="Parameters of the spaces")
    for called, space in spaces.items():
        found = _told(parameters, space)
        rows = [("-", found, "")] if isinstance(found, str) else [(one.name, one.range, one.when) for one in found]
        for i, row in enumerate(rows):
            table.add_row("" if i else called, *row, end_section=i + 1 == len(rows))
    return table


def _count(family: Family, preset: str, about: Preflight | None) -> str:
    """How many parameters the model of a preset has: as the family says, or of one without storage."""
    config = build_config(family, preset=preset)
    if about is not None and about.footprint is not None:
        return f"{about.footprint(config).parameters:,}"
    import torch

    with torch.device("meta"):
        model = resolve(family.model)(config)
    return f"{sum(weight.numel() for weight in model.parameters()):,}"


def _told(call: Callable[..., Any], *arguments: Any) -> Any:
    """What the call returns, or in words why it fails: it is code of the user's."""
    try:
        return call(*arguments)
    except ValidationError as error:
        return explain(error, "wrong")
    except (Exception, SystemExit):  # noqa: BLE001 - code of the user's: it becomes a cell of the table
        return f"fails: {headline(traceback.format_exc())}"
