"""tune-rh in Python: the plans, runs and results of the command line, for a script, a notebook or any thread.

Nothing here prints or ends the process; what a user can mend is raised as a `tune_rh.errors.TuneError` or a
`trainables.errors.TrainableError`, before anything is launched where that can be known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from analysis.diagnose.api import answer, baseline, diagnostic
from search_spaces.api import Space
from trainables.api import Metric
from trainables.given.module import write_payloads
from trainables.trust import trust as trust_modules
from tune_rh.checking import check
from tune_rh.errors import PlanError
from tune_rh.plan.file import check_keywords, find_plan
from tune_rh.plan.file import load_plan as _load_plan
from tune_rh.plan.kinds import Search
from tune_rh.plan.schema import Plan
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.results.callbacks import Callbacks, OnEvent, Say
from tune_rh.results.on_disk import Run
from tune_rh.results.reading import read
from tune_rh.run import runs

if TYPE_CHECKING:
    from tune_rh.run.chosen import Chosen
    from tune_rh.simulation.clock import Conditions, Trace
    from tune_rh.watch.watchers import WatcherLike

__all__ = [
    "Run", "answer", "baseline", "check", "compare", "diagnostic", "load", "load_plan", "race", "resume", "search",
    "simulate",
]  # fmt: skip


class Launch(TypedDict, total=False):
    """Keywords of `search`, `race` and `compare`: where, on what and how carefully.

    Attributes:
        overrides: as ``--set`` takes them; for a plan that is read or made here.
        runs_dir: where runs lie.
        data_dir: where data sets lie (None: ``$TUNE_RH_DATA_DIR``, or ``data``).
        runner: ``ray``, or ``local``: in this process.
        address: of a Ray cluster to join; ``local``: one of its own.
        slots_max: jobs at a time on a cluster whose autoscaler brings nodes for them (None: as many as fit on it now).
        mirror: address below which a copy of the run is kept, as ``s3://bucket/prefix``: `resume` goes on from it.
        watchers: what follows the run, beside the plan's ``watch``: objects or classes called with an event and
            the history (`tune_rh.watch.watchers`). What one raises is a warning.
        on_event: called with each event and the history that has it. What it raises ends the session.
        say: called with each line for people, such as ``print``: where the run lies, and what becomes of candidates.
        accept: ids of findings of the checks before launch that it goes on despite, such as ``["P20"]``.
        strict: check any run as a long one on an accelerator.
        trial: first take the control through one trial round trip, in seconds: build, step, evaluate, save, load.
    """

    overrides: Sequence[str]
    runs_dir: str | Path
    data_dir: str | Path | None
    runner: str
    address: str
    slots_max: int | None
    mirror: str | None
    watchers: Sequence[WatcherLike]
    on_event: OnEvent | None
    say: Say | None
    accept: Collection[str]
    strict: bool
    trial: bool


def load_plan(plan: str | Path, *overrides: str) -> Plan:
    """The plan in a TOML file, or one that ships, by name; ``overrides`` are texts such as ``"seeds=[1, 2]"``.

    Raises:
        PlanError: naming the field, its value and what is allowed.
    """
    return _load_plan(find_plan(str(plan)), overrides)


def search(
    task: Plan | str | Path | Callable[..., Any],
    *,
    space: Space | Callable[..., Any] | None = None,
    base: Any = None,
    objective: str | None = None,
    mode: str = "min",
    data: str | Path | Callable[[Path], Any] | None = None,
    metrics: Sequence[str | Metric] = (),
    diagnostics: Sequence[Callable[..., Any]] = (),
    baselines: Sequence[Callable[..., Any]] = (),
    steps: int | None = None,
    stages: Sequence[Any] = (),
    candidates: int | None = None,
    name: str | None = None,
    **options: Any,
) -> Run:
    """Search over a task of your own, or run a plan, in a new folder of runs; returns it as it ended.

    The first Ctrl-C stops cleanly, where this is called from the main thread: `resume` goes on.

    Args:
        task: a class (or what makes an object) that is called as ``task(config, seed=..., device=..., data_dir=...)``
            and has the four methods of `trainables.api.TrainTask`. Or a plan (of a search, a race or a comparison), a
            TOML file, or the name of a plan that ships: then all from ``space`` to ``name`` is left out.
        space: draws config fields from a trial, as Optuna has it; or a `search_spaces.api.Space`.
        base: the control's config, over which what is drawn is laid: a dict, a dataclass or a pydantic model. The task
            gets the same kind.
        objective: the metric of ``evaluate("val")`` that decides.
        mode: ``min`` or ``max``: which is better.
        data: a file or a folder, or a function that makes one below the folder it is given and returns its path; that
            is what the task gets as ``data_dir``.
        metrics: others that tasks report, for the plan's rules.
        diagnostics: functions of a trained model that say whether all is well with it (`diagnostic`).
        baselines: functions that return a score to beat (`baseline`).
        steps: how long a full run is; gates learn, further seeds come last, and a budget of steps is spent to its end.
        stages: in place of ``steps``: ``(steps, seeds)`` of each, or tables as in a plan.
        candidates: how many configs, beside the base (None, with ``steps`` and a budget: as many as that pays for).
        name: of the run (None: that of the task, with a number where it is taken).
        options: those of `Launch`, and for a task all other keys of a plan, such as ``seeds`` or ``resources``.

    Raises:
        PlanError, PreflightRefused, RunExists, trainables.errors.DataError: before anything is launched.
    """
    check_keywords(options, {*Search.model_fields, *Launch.__annotations__, *signature(search).parameters})
    launch = Launch(**{key: options.pop(key) for key in (*Launch.__annotations__,) if key in options})  # type: ignore[typeddict-item]
    described = {"space": space, "base": base, "objective": objective, "data": data, "candidates": candidates}
    asked = dict[str, Any](metrics=metrics, diagnostics=diagnostics, baselines=baselines, steps=steps, stages=stages)
    if isinstance(task, Plan | str | Path):
        others = {"mode": mode if mode != "min" else None, "name": name, **asked}
        given = [key for key, value in {**described, **others, **options}.items() if value not in (None, ())]
        if given:
            raise PlanError(f"{given[0]}: is for a search over a task; what is searched here is a plan: give overrides")
        return _launch(_read_plan(task, launch.pop("overrides", ())), **launch)
    from tune_rh.plan.from_task import plan_of

    name = name if name is not None else runs.free_name(task, Path(launch.get("runs_dir", "runs")))
    plan = plan_of(task, name, mode=mode, fields=options, **described, **asked)
    return _launch(plan, **launch)


def _launch(
    plan: Plan,
    *,
    overrides: Sequence[str] = (),
    runs_dir: str | Path = "runs",
    data_dir: str | Path | None = None,
    runner: str = "ray",
    address: str = "local",
    slots_max: int | None = None,
    mirror: str | None = None,
    watchers: Sequence[WatcherLike] = (),
    on_event: OnEvent | None = None,
    say: Say | None = None,
    accept: Collection[str] = (),
    strict: bool = False,
    trial: bool = True,
) -> Run:
    """Run a plan in a new folder; arguments as `Launch` says."""
    from tune_rh.run.execute import Place, Precautions, launch

    if overrides:
        raise PlanError(f"overrides = {list(overrides)}: are for a plan that is read; this one is made here already")
    trust_modules(*plan.from_outside)
    folder = Path(data_dir or runs.default_data_dir()).absolute()
    place = Place(folder, runner, address, slots_max, mirror=mirror, watchers=tuple(watchers))
    precautions = Precautions(frozenset(accept), strict, trial)
    paths, _ = launch(plan, Path(runs_dir), place, Callbacks(on_event, say), _no_conclusion, precautions)
    return Run(read(paths))


def race(
    config: str | Path,
    *,
    seeds: Sequence[int],
    steps: int,
    keep: int,
    then: int,
    family: str | None = None,
    patience: int | None = None,
    success: float | None = None,
    eval_every: int | None = None,
    **launch: Unpack[Launch],
) -> Run:
    """Race seeds of one config: all run to a gate, the best go on from their own checkpoints; returns the run.

    Args:
        config: a preset, a TOML file, ``RUN/c0007`` or an exported folder.
        seeds: those that start.
        steps: the gate, in optimiser steps.
        keep: how many members pass it.
        then: where those end, in steps since their start.
        family: whose preset it is, where several families have one of that name.
        patience: stop a member without a new best for so many steps.
        success: a value as good as this counts as a success.
        eval_every: steps between evaluations (None: about 10 to the gate).
        launch: see `Launch`.

    Raises:
        PlanError, PreflightRefused, RunExists, trainables.errors.DataError: before anything is launched.
    """
    from tune_rh.run.builders import race_plan

    plan = race_plan(
        _given(config, family, launch),
        seeds=seeds,
        steps=steps,
        keep=keep,
        then=then,
        patience=patience,
        success=success,
        eval_every=eval_every,
        overrides=launch.pop("overrides", ()),
    )
    return _launch(plan, **launch)


def compare(
    a: str | Path,
    b: str | Path,
    *,
    steps: int,
    seeds: int | Sequence[int] = 8,
    family: str | None = None,
    bisect: bool = False,
    eval_every: int | None = None,
    settings: Mapping[str, Any] | None = None,
    **launch: Unpack[Launch],
) -> Run:
    """Compare config ``b`` with config ``a``, paired by seed; returns the run, whose report states the verdict.

    Args:
        a: what ``b`` is held against: a preset, a TOML file, ``RUN/c0007`` or an exported folder.
        b: the config under question.
        steps: optimiser steps of every training run.
        seeds: how many pairs, or which seeds; fixed before the first.
        family: of presets and of files that do not name theirs.
        bisect: if ``b`` is worse, find the keys that carry it.
        eval_every: steps between evaluations (None: about 10 in all).
        settings: the rest of the plan's ``[compare]`` table, such as ``{"test": "t", "region": 0.02}``.
        launch: see `Launch`.

    Raises:
        PlanError, PreflightRefused, RunExists, trainables.errors.DataError: before anything is launched.
    """
    from tune_rh.run.builders import comparison_plan

    plan = comparison_plan(
        _given(a, family, launch),
        _given(b, family, launch),
        steps=steps,
        seeds=seeds,
        eval_every=eval_every,
        compare={**(settings or {}), **({"bisect": True} if bisect else {})},
        overrides=launch.pop("overrides", ()),
    )
    return _launch(plan, **launch)


def resume(
    run: str | Path,
    *,
    task: Callable[..., Any] | None = None,
    overrides: Sequence[str] = (),
    runs_dir: str | Path = "runs",
    data_dir: str | Path | None = None,
    runner: str = "ray",
    address: str = "local",
    slots_max: int | None = None,
    mirror: str | None = None,
    watchers: Sequence[WatcherLike] = (),
    on_event: OnEvent | None = None,
    say: Say | None = None,
    trust: str | None = None,
    accept: Collection[str] = (),
    strict: bool = False,
) -> Run:
    """Go on with a run after a stop or a crash; returns it as it ended. Arguments as for `search` and `load`;
    ``overrides`` extend the plan (more candidates, a budget, resources, diagnostics, further stages). ``task`` is the
    one that the run was given in Python, once its code is mended: it takes the place of that from here on.
    A run at an address (``s3://bucket/prefix/NAME``) is fetched first, and its mirror is kept.

    Raises:
        PlanError: ``overrides`` change what may not change.
        RunNotFound, RunLocked, RunMismatch, JournalCorrupt, PreflightRefused: the run cannot go on, and why.
    """
    from tune_rh.run.execute import Place, Precautions, execute
    from tune_rh.run.fetch import find_or_fetch

    if trust is not None:
        trust_modules(trust)
    audience = Callbacks(on_event, say)
    paths, fetched_from = find_or_fetch(str(run), Path(runs_dir), audience.say)
    if task is not None:
        overrides, accept = [*overrides, f'family="{_mended(paths, task)}"'], [*accept, "code"]
    folder, kept_at = Path(data_dir or runs.recorded_data_dir(paths)).absolute(), mirror or fetched_from
    place = Place(folder, runner, address, slots_max, mirror=kept_at, watchers=tuple(watchers))
    precautions = Precautions(frozenset(accept), strict)
    execute(paths, place, audience, _no_conclusion, precautions, overrides)
    return Run(read(paths))


def load(run: str | Path, runs_dir: str | Path = "runs", trust: str | None = None) -> Run:
    """A run as it is now, finished or not.

    Args:
        run: its name in ``runs_dir``, or its folder.
        runs_dir: where runs lie.
        trust: the module of a family from outside, for a run that somebody else made.

    Raises:
        RunNotFound: with the names there are.
        JournalCorrupt: its plan or journal are damaged.
    """
    return Run(read(_find(run, runs_dir, trust)))


def simulate(
    plan: Plan | str | Path, curves: str | Path, conditions: Conditions | None = None, repeats: int = 20, seed: int = 0
) -> list[Trace]:
    """Search on recorded curves under a virtual clock, ``repeats`` times with seeds from ``seed`` on.

    Args:
        plan: as for `search`; its stages, seeds, gates, sampler and budget count.
        curves: a table of learning curves (Parquet; ``tune-rh simulate --record`` makes one of a run).
        conditions: workers, failures and so on (None: one worker, no failures).
        repeats: how many searches.
        seed: of the first; the others count on from it.

    Raises:
        PlanError: what the table cannot give, naming the field or the curve.
    """
    from tune_rh.simulation.clock import Conditions
    from tune_rh.simulation.curve_table import load as load_curves
    from tune_rh.simulation.table_source import repeat

    searched = plan if isinstance(plan, Plan) else load_plan(plan)
    if not isinstance(searched, Search):
        raise PlanError(f"plan {searched.name!r}: a simulation is of a search, and this is a {searched.kind}")
    return list(repeat(searched, load_curves(Path(curves)), conditions or Conditions(), repeats, seed))


def _read_plan(plan: Plan | str | Path, overrides: Sequence[str]) -> Plan:
    if not isinstance(plan, Plan):
        return load_plan(plan, *overrides)
    if overrides:
        raise PlanError(f"overrides = {list(overrides)}: are for a plan that is read; this one is a Plan already")
    return plan


def _find(run: str | Path, runs_dir: str | Path, trust: str | None) -> RunPaths:
    if trust is not None:
        trust_modules(trust)
    return runs.find(str(run), Path(runs_dir).absolute())


def _given(config: str | Path, family: str | None, launch: Launch) -> Chosen:
    from tune_rh.run.chosen import chosen

    return chosen(str(config), family, Path(launch.get("runs_dir", "runs")).absolute())


def _mended(paths: RunPaths, task: Callable[..., Any]) -> str:
    """The family of a run with ``task`` in place of its own, whose payload then lies in the run's folder."""
    from tune_rh.plan.from_task import with_task

    family = with_task(runs.replay(paths)[0].family, task)
    write_payloads((family,), paths.root)
    return family


def _no_conclusion(paths: RunPaths, history: History) -> None:
    """Nothing is written at the end: `Run.report` and `Run.export` are the caller's to ask for."""
