"""Families of models that can be searched; with a name, its presets, spaces and metrics."""

from __future__ import annotations

import argparse

from rich.table import Table

from search_spaces.registry import outside, spaces_of
from trainables.registry import FAMILIES, get_family
from tune_rh.cli import terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", nargs="?", help="name of a family")


def run(args: argparse.Namespace) -> int:
    to = terminal.console()
    if args.family is None:
        table = Table("family", "what it is", "decided by")
        for name in FAMILIES:
            family = get_family(name)
            table.add_row(name, family.summary, f"{family.objective.name} ({family.objective.mode})")
        to.print(table)
        return 0
    family = get_family(args.family)
    to.print(f"{family.name}: {family.summary}", soft_wrap=True)
    presets = Table("preset", "differs from the defaults by", title="Presets")
    for name, fields in family.presets.items():
        presets.add_row(name, " ".join(f"{key}={value}" for key, value in fields.items()) or "-")
    spaces = Table("space", "what it varies", "laid over", "presets it can draw", title="Spaces")
    for name, space in spaces_of(args.family).items():
        beyond = outside(args.family, space)
        inside = " ".join(preset for preset in family.presets if preset not in beyond)
        spaces.add_row(name, space.summary, space.base, inside or "-")
    metrics = Table("metric", "better", "unit", "what it is", title="Metrics")
    for metric in family.metrics:
        metrics.add_row(metric.name, metric.mode, metric.unit, metric.description)
    to.print(presets, *([spaces] if spaces.row_count else []), metrics)
    return 0
