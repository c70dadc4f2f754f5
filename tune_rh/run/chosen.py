"""Configs as a user chooses them: a preset, a file, an exported folder, a candidate of a run."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from analysis.escape import printable
from trainables.errors import CheckpointCorrupt
from trainables.files import read_fields
from trainables.registry import FAMILIES, build_config, get_family, resolve
from trainables.trust import trust
from trainables.worker import exported
from trainables.worker.exported import INDEX
from tune_rh.errors import PlanError
from tune_rh.plan.file import explain
from tune_rh.plan.schema import Variant
from tune_rh.run import runs


@dataclass(frozen=True)
class Chosen:
    """A config as a user chooses it on the command line: its family, and what it is made from."""

    family: str
    label: str
    variant: Variant


def resolved(config: Chosen) -> Any:
    """The config that a user named, built by its family; raises PlanError field by field."""
    try:
        family = get_family(config.family)
        return build_config(family, preset=config.variant.preset, written=[config.variant.fields])
    except ValidationError as error:
        raise PlanError(explain(error, config.label, resolve(family.config))) from error


def chosen(text: str, family: str | None, runs_dir: Path) -> Chosen:
    """Read ``text``: a TOML file, an exported folder, a candidate or member of a run (``RUN/c0007``), or a preset.

    A file holds config fields, and may hold ``family``, ``preset`` (what the rest is laid over) and ``patience_steps``.

    Args:
        text: what was typed.
        family: the family that presets and files without one belong to; None: the one that has the preset.
        runs_dir: where runs lie.

    Raises:
        PlanError: nothing of that name, or a file that does not say its family.
    """
    if family is not None:
        trust(family)
    path = Path(text)
    if (path / INDEX).is_file():
        return _exported(path)
    if path.is_file():
        return _from_file(path, family)
    run, slash, member = text.rpartition("/")
    if slash and re.fullmatch(r"c\d+(-s\d+)?", member):
        return _of_run(run, member, runs_dir)
    if path.suffix == ".toml" or slash:
        raise PlanError(f"{text}: no such file, and not RUN/c0007")
    owners = [family] if family else [name for name in FAMILIES if text in get_family(name).presets]
    if len(owners) != 1 or text not in get_family(owners[0]).presets:
        known = "; ".join(f"{name}: {', '.join(sorted(get_family(name).presets))}" for name in (owners or FAMILIES))
        raise PlanError(
            f"{text!r}: is neither a file, nor a candidate of a run (RUN/c0007), nor a preset ({known})"
            if len(owners) < 2
            else f"{text!r}: is a preset of {' and '.join(owners)}; choose with --family"
        )
    return Chosen(owners[0], text, Variant(preset=text))


def _exported(path: Path) -> Chosen:
    try:
        found = exported.read(path)
    except CheckpointCorrupt as error:
        raise PlanError(str(error)) from error
    return Chosen(found.index["family"], printable(path.resolve().name), Variant(fields=found.fields))


def _from_file(path: Path, family: str | None) -> Chosen:
    try:
        fields = read_fields(path, tomllib.loads)
    except ValueError as error:
        raise PlanError(f"{path}: cannot be read as TOML: {error}") from error
    if not fields:
        raise PlanError(f"{path}: is empty; a config says at least its family, a preset or one field")
    named = fields.pop("family", family)
    if named is None:
        raise PlanError(f"{path}: does not say its family; add `family = ...` or give --family")
    if family is not None and named != family:
        raise PlanError(f"{path}: family = {named!r}, but --family is {family!r}")
    if not (path.parent / INDEX).exists():
        trust(str(named))
    try:
        variant = Variant(
            preset=fields.pop("preset", None), patience_steps=fields.pop("patience_steps", None), fields=fields
        )
    except ValidationError as error:
        raise PlanError(explain(error, str(path))) from error
    return Chosen(named, printable(path.stem), variant)


def _of_run(run: str, member: str, runs_dir: Path) -> Chosen:
    plan, history = runs.replay(runs.find(run, runs_dir))
    name, _, seed = member.partition("-s")
    candidate = history.candidates.get(name)
    if candidate is not None and seed and int(seed) not in candidate.members:
        seeds = ", ".join(map(str, candidate.members))
        raise PlanError(f"{run}/{member}: {name} has no such seed; it has {seeds}")
    if candidate is None:
        raise PlanError(f"{run}/{member}: run {run!r} has no such candidate; it has {', '.join(history.candidates)}")
    added = candidate.added
    variant = Variant(fields=dict(added.config), patience_steps=added.patience_steps)
    made = Chosen(plan.family, f"{Path(run).name}/{added.candidate}", variant)
    return _checked(made, f"{run}/{member}", added.config_digest)


def _checked(made: Chosen, where: str, digest: str) -> Chosen:
    """``made``, if it still is the config with that digest."""
    found = resolved(made).digest()
    if found != digest:
        raise PlanError(
            f"{where}: is read as another config than the one that ran (digest {found[:12]}, recorded {digest[:12]}): "
            f"the config fields of {made.family} have changed since"
        )
    return made
