"""Checks before anything is launched: the plan's configs can all be built, and this machine has room for the run.

Everything wrong is said at once. Not here: the plan's own form (`tune_rh.plan`), nor what a Ray cluster can give
(`tune_rh.ray_cluster.count_slots`, once it is connected).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search_spaces.api import RandomTrial, Space
from search_spaces.registry import UnknownSpace, get_space
from trainables.registry import build_config, get_family
from tune_rh.errors import PlanError, PreflightRefused
from tune_rh.plan import SearchPlan
from tune_rh.plan_file import explain

MIN_FREE_MIB = 256
_DRAWS = 50


def check_plan(plan: SearchPlan) -> None:
    """Raise `PlanError` unless control, presets and draws from the space all give valid configs on one data set."""
    try:
        space = get_space(plan.family, plan.space)
    except UnknownSpace as error:
        raise PlanError(str(error)) from error
    problems: list[str] = []
    data: dict[str, str] = {}
    for preset in (plan.control, *plan.presets):
        _build(plan, {}, preset, f"preset {preset!r}", problems, data)
    asked = _check_space(plan, space, problems, data)
    problems += [
        f"fixed.{name} = {plan.fixed[name]!r}: space {plan.space!r} draws {name}; fix it or draw it"
        for name in sorted(asked & plan.fixed.keys())
    ]
    if len(set(data.values())) > 1:
        which = ", ".join(f"{where}: {name}" for where, name in data.items())
        problems.append(f"data differs ({which}): set fixed.data, or no comparison would mean anything")
    if problems:
        raise PlanError("\n".join(dict.fromkeys(problems)))


def check_machine(plan: SearchPlan, runs_dir: Path, *, local: bool) -> None:
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


def _check_space(plan: SearchPlan, space: Space, problems: list[str], data: dict[str, str]) -> set[str]:
    """Names that the space asks for; notes draws that cannot be built."""
    asked: set[str] = set()
    for seed in range(_DRAWS):
        trial = RandomTrial(seed)
        fields = space.suggest(trial)
        asked |= trial.params.keys()
        if not _build(plan, fields, space.base, f"space {plan.space!r}", problems, data):
            break
    if not asked:
        problems.append(f"space {plan.space!r}: draws nothing, so there is one config only; choose another space")
    return asked


def _build(
    plan: SearchPlan, fields: Mapping[str, Any], preset: str, where: str, problems: list[str], data: dict[str, str]
) -> bool:
    try:
        data[where] = build_config(get_family(plan.family), fields, plan.fixed, preset=preset).data
    except ValidationError as error:
        problems.append(explain(error, f"{where} with fixed" if plan.fixed else where))
        return False
    return True
