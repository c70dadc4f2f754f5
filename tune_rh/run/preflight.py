"""Checks before anything is launched: the plan's configs can all be built and fit their data, and there is room here.

Everything wrong is said at once. Not here: the plan's own form (`tune_rh.plan.schema`), nor what a Ray cluster can give
(`tune_rh.run.ray_cluster.count_slots`, once it is connected).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search_spaces.api import RandomTrial, Space, Unsatisfiable
from search_spaces.registry import UnknownSpace, get_space
from trainables.api import ConfigCheck, Finding
from trainables.config import FrozenConfig
from trainables.errors import DataCorrupt, DataError, DataMissing, UnknownFamily
from trainables.registry import FAMILIES, OPTIONAL, build_config, get_family, get_part, resolve
from trainables.spelling import NONE, ambiguous
from tune_rh.decide.scheduler import scheduler_of
from tune_rh.errors import PlanError, PreflightRefused
from tune_rh.plan.configs import named_config
from tune_rh.plan.file import explain
from tune_rh.plan.follow_ups import changes, check_follow_ups
from tune_rh.plan.kinds import SAMPLERS, Comparison, Search
from tune_rh.plan.named import named_class
from tune_rh.plan.schema import Plan

MIN_FREE_MIB = 256
_DRAWS = 50


def refuse(findings: Iterable[Finding]) -> None:
    """Raise `PreflightRefused` with every finding that keeps the run from starting, one a line, if there is any."""
    lines = [str(finding) for finding in findings if finding.level == "refuse"]
    if lines:
        raise PreflightRefused("\n".join(dict.fromkeys(lines)))


def check_plan(plan: Plan) -> None:
    """Raise `PlanError` unless control, presets and draws from the space all give valid configs on one data set."""
    problems = _check_own_family(plan.family)
    if problems:
        raise PlanError("\n".join(problems))
    scheduler_of(plan)
    if isinstance(plan, Search) and plan.sampler.name not in SAMPLERS:
        named_class("sampler.name", plan.sampler.name, SAMPLERS, ("draw",))
    data: dict[str, str] = {}
    if not plan.control:
        problems.append("control: missing; a search needs something that others must beat")
    built = [_named(plan, name, problems, data) for name, _ in plan.named if name]
    for (name, origin), made in zip(plan.named, built, strict=False):
        if origin == "reference" and made is not None and built.count(made) > 1:
            problems.append(f"references: {name!r} is the same config as another that the plan names")
    if isinstance(plan, Comparison) and built[0] is not None and built[0] == built[-1]:
        problems.append(f"presets: {plan.presets[0]!r} and the control {plan.control!r} are the same config")
    problems += _unclear(plan)
    if isinstance(plan, Search) and plan.space:
        drawn = _check_space(plan, problems, data)
        problems += [
            f"fixed.{name} = {plan.fixed[name]!r}: space {plan.space!r} draws {name}; fix it or draw it"
            for name in sorted(drawn & plan.fixed.keys())
        ]
    if len(set(data.values())) > 1:
        which = ", ".join(f"{where}: {name}" for where, name in data.items())
        problems.append(f"data differs ({which}): set fixed.data, or no comparison would mean anything")
    if isinstance(plan, Search) and plan.follow_ups and not problems:
        problems += check_follow_ups(plan, list(_winners(plan)))
    if problems:
        raise PlanError("\n".join(dict.fromkeys(problems)))


def check_data(plan: Plan, data_dir: Path) -> None:
    """Raise `DataError` unless control, presets and draws from the space all fit their data set, which is made.

    A family whose data cannot tell is taken at its word.

    Raises:
        trainables.errors.DataMissing: the data set is not made.
        trainables.errors.DataCorrupt: it is damaged.
    """
    source = resolve(get_family(plan.family).data)
    if not isinstance(source, ConfigCheck):
        return
    problems = []
    references = [name for name, origin in plan.named if origin == "reference"]
    named = [(f"reference {name!r}", named_config(plan, name)[0]) for name in references]
    for where, config in (*_winners(plan), *named):
        try:
            source.check(config, data_dir)
        except (DataMissing, DataCorrupt):
            raise
        except DataError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise DataError("\n".join(dict.fromkeys(problems)))


def check_machine(plan: Plan, runs_dir: Path, *, local: bool) -> None:
    """Raise `PreflightRefused` if the disk is nearly full or, in process, a job asks for more than this machine has."""
    problems = []
    free_mib = shutil.disk_usage(runs_dir).free // 2**20
    if free_mib < MIN_FREE_MIB:
        problems.append(f"{runs_dir}: {free_mib} MiB free; a run needs {MIN_FREE_MIB} MiB at the least")
    cores = os.cpu_count() or 1
    if local and plan.resources.cpu > cores:
        problems.append(f"resources.cpu = {plan.resources.cpu}: this machine has {cores}")
    if local and plan.resources.gpu:
        import torch

        if torch.cuda.device_count() < plan.resources.gpu:
            problems.append(
                f"resources.gpu = {plan.resources.gpu:g}: torch sees {torch.cuda.device_count()} CUDA devices here"
            )
    if problems:
        raise PreflightRefused("\n".join(problems))


def _check_own_family(name: str) -> list[str]:
    """What a family from outside (``"module:attr"``) lacks; those of this project are tested."""
    if name in FAMILIES:
        return []
    family, problems, parts = get_family(name), [], {}
    for part in ("config", "model", "task", "data", *OPTIONAL):
        try:
            parts[part] = get_part(name, part)
        except UnknownFamily as error:
            problems.append(str(error))
    config = parts.get("config", FrozenConfig)
    if not (isinstance(config, type) and issubclass(config, FrozenConfig)):
        problems.append(f"family {name}: config = {family.config!r}: is no trainables.config.FrozenConfig")
    elif "config" in parts and "data" not in config.model_fields:
        problems.append(f"family {name}: config = {family.config!r}: has no field data, the name of its data set")
    if family.objective.name not in {metric.name for metric in family.metrics}:
        problems.append(f"family {name}: objective {family.objective.name!r} is not among its metrics")
    return problems


def _unclear(plan: Plan) -> list[str]:
    """A line for each text in the plan's config fields that may stand for None."""
    model = resolve(get_family(plan.family).config)
    tables: dict[str, Mapping[str, Any]] = {"fixed": plan.fixed}
    for name, variant in plan.configs.items():
        if variant.preset is not None or variant.fields.keys() < model.model_fields.keys():  # else nobody typed it
            tables[f"configs.{name}.fields"] = variant.fields
    if isinstance(plan, Search):
        tables |= {f"follow_ups[{change.table}].changes": change.fields for change in changes(plan)}
    return [
        f'{table}.{field} = {text!r}: may be None or the text; write "{NONE}" for None, "@text:{text}" for the text'
        for table, fields in tables.items()
        for field, text in ambiguous(model, fields)
    ]


def _winners(plan: Plan) -> Iterator[tuple[str, Any]]:
    """Configs that may win, of a plan that `check_plan` has passed, with where each comes from."""
    for name in (name for name, origin in plan.named if origin != "reference"):
        yield f"{'config' if name in plan.configs else 'preset'} {name!r}", named_config(plan, name)[0]
    if isinstance(plan, Search) and plan.space:
        space = get_space(plan.family, plan.space)
        for seed in range(_DRAWS):
            yield f"space {plan.space!r}", _draw(plan, space, space.suggest(RandomTrial(seed)))


def _named(plan: Plan, name: str, problems: list[str], data: dict[str, str]) -> tuple[Any, int | None] | None:
    try:
        config, patience = named_config(plan, name)
    except PlanError as error:
        problems.append(str(error))
        return None
    data[f"preset {name!r}"] = config.data
    return config, patience


def _check_space(plan: Search, problems: list[str], data: dict[str, str]) -> set[str]:
    """Fields that the space sets; notes draws that cannot be built."""
    try:
        space = get_space(plan.family, plan.space)
    except UnknownSpace as error:
        problems.append(str(error))
        return set()
    asked, fields = set[str](), set[str]()
    for seed in range(_DRAWS):
        trial = RandomTrial(seed)
        try:
            drawn = space.suggest(trial)
            asked |= trial.params.keys()
            fields |= drawn.keys()
            data[f"space {plan.space!r}"] = _draw(plan, space, drawn).data
        except (ValidationError, Unsatisfiable) as error:
            where = f"space {plan.space!r}" + (" with fixed" if plan.fixed else "")
            problems.append(explain(error, where) if isinstance(error, ValidationError) else f"{where}: {error}")
            return fields
    if not asked:
        problems.append(f"space {plan.space!r}: draws nothing, so there is one config only; choose another space")
    return fields


def _draw(plan: Plan, space: Space, drawn: Mapping[str, Any]) -> Any:
    config = build_config(get_family(plan.family), drawn, preset=space.base, written=[plan.fixed])
    if space.check is not None:
        space.check(config.model_dump())
    return config
