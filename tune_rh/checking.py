"""A family, or a task given in Python, checked as before a search, in seconds and without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search_spaces.api import Space
from search_spaces.registry import spaces_of
from trainables.api import Family, Finding, Metric, Progress
from trainables.registry import build_config, dataset_of, get_family
from trainables.trust import trust
from tune_rh.errors import PlanError
from tune_rh.plan.file import explain
from tune_rh.preflight.inputs import check_config, check_family, check_space
from tune_rh.preflight.trial import try_task
from tune_rh.run.runs import default_data_dir, make_data


def check(
    task: str | Callable[..., Any],
    *,
    space: Space | Callable[..., Any] | None = None,
    base: Any = None,
    objective: str | None = None,
    mode: str = "min",
    data: str | Path | Callable[[Path], Any] | None = None,
    metrics: Sequence[str | Metric] = (),
    preset: str | None = None,
    device: str = "cpu",
    data_dir: str | Path | None = None,
) -> list[Finding]:
    """What a search over a task would refuse or warn of, found in seconds: one finding a law that does not hold.

    The task is built, steps, is evaluated twice, saved, loaded into a task of another seed, and goes on bit for bit, in
    a process of its own. Configs come back from their own text, and the space gives valid ones.

    Args:
        task: as for `tune_rh.search`, with ``space`` to ``metrics``; or a family by name, such as ``"mine:FAMILY"``.
        preset: of a family, for the task that is tried (None: ``tiny``, or the first there is).
        device: where it is tried: ``cpu`` or ``cuda``.
        data_dir: where data sets lie (None: ``$TUNE_RH_DATA_DIR``, or ``data``).

    Raises:
        PlanError: an argument is wrong, naming it.
        trainables.errors.DataError: the data set cannot be made.
    """
    if isinstance(task, str):
        family = task
        trust(family)
    else:
        from tune_rh.plan.from_task import family_of

        family = family_of(task, space=space, base=base, objective=objective, mode=mode, data=data, metrics=metrics)
    return try_family(family, preset, device, Path(data_dir or default_data_dir()).absolute(), _unseen)


def preset_of(family: Family, preset: str | None) -> str:
    """The preset of the task that is tried: ``preset``, or else ``tiny``, or the first there is."""
    if not family.presets:
        raise PlanError(f"family {family.name}: has no presets, so there is no config to try")
    return preset or ("tiny" if "tiny" in family.presets else next(iter(family.presets)))


def try_family(
    name: str,
    preset: str | None,
    device: str,
    data_dir: Path,
    bar: Callable[[str], AbstractContextManager[Progress]],
) -> list[Finding]:
    """All findings about a family; its task is tried where nothing is refused before. ``bar`` shows data being made."""
    family = get_family(name)
    preset = preset_of(family, preset)
    found = [*check_family(name)] or [*_configs(name, family)]
    if not any(finding.level == "refuse" for finding in found):
        config = build_config(family, preset=preset)
        make_data(family, dataset_of(family, config), data_dir, bar)
        found += try_task(family, config, data_dir, device=device, wanted=None)
    return found


def _configs(name: str, family: Family) -> Iterator[Finding]:
    for preset in family.presets:
        try:
            yield from check_config(f"preset {preset!r}", build_config(family, preset=preset))
        except ValidationError as error:
            for line in explain(error, "").splitlines():
                yield Finding("P02", f"preset {preset!r}", line.removeprefix(": "))
    for called, space in spaces_of(name).items():
        drawn = check_space(f"space {called!r}", space, partial(build_config, family, preset=space.base))
        yield from drawn.findings
        for config in drawn.configs:
            yield from check_config(f"space {called!r}", config)


@contextmanager
def _unseen(title: str) -> Iterator[Progress]:
    yield lambda done, total: None
