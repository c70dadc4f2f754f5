"""tune-rh in Python: the plans, runs and results of the command line, for a script, a notebook or any thread.

Nothing here prints or ends the process; what a user can mend is raised as a `tune_rh.errors.TuneError` or a
`trainables.errors.TrainableError`, before anything is launched where that can be known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from analysis.tables import RunTables
from trainables.api import Progress
from trainables.trust import trust as trust_modules
from tune_rh.errors import PlanError
from tune_rh.plan.file import find_plan
from tune_rh.plan.file import load_plan as _load_plan
from tune_rh.plan.kinds import Comparison, Search
from tune_rh.plan.schema import Plan
from tune_rh.record.events import Event
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.results.reading import Reading, read
from tune_rh.run import runs

if TYPE_CHECKING:
    from analysis.stats.claims import Claim
    from analysis.view import Standing
    from tune_rh.run.execute import Place
    from tune_rh.run.given import Given
    from tune_rh.simulation.clock import Conditions, Trace

__all__ = ["Run", "compare", "load", "load_plan", "race", "resume", "search", "simulate"]

OnEvent = Callable[[Event, History], object]
Say = Callable[[str], object]


class Launch(TypedDict, total=False):
    """The keywords of `search` that `race` and `compare` take as well."""

    overrides: Sequence[str]
    runs_dir: str | Path
    data_dir: str | Path | None
    runner: str
    address: str
    slots_max: int | None
    mirror: str | None
    on_event: OnEvent | None
    say: Say | None
    accept: Collection[str]
    strict: bool
    trial: bool


class Run(RunTables):
    """A run on disk as it stood when it was read: its tables, its best, its report and its export.

    Attributes:
        root: its folder.
    """

    def __init__(self, reading: Reading) -> None:
        super().__init__(reading.run)
        self.root = reading.paths.root
        self._reading = reading

    @property
    def best(self) -> Standing | None:
        """The best of those that finished, are ranked and pass what the plan requires; None if there is none."""
        return self.run.best

    @property
    def claim(self) -> Claim | None:
        """What a comparison says of B - A, where lower is better; None for another plan, or before both have begun."""
        from tune_rh.decide import comparison

        history = self._reading.history
        if not isinstance(history.plan, Comparison) or len(history.candidates) < 2:
            return None
        return comparison.claim(history)

    def report(self, out: str | Path | None = None) -> Path:
        """Write the report; the path of its page. With ``out`` that page alone, elsewhere than in the run's folder."""
        from tune_rh.results.reporting import write

        return write(self._reading, runs.recorded_data_dir(self._reading.paths), None if out is None else Path(out))

    def export(self, out: str | Path, candidate: str | None = None, *, despite: bool = False) -> Path:
        """Write the best candidate (or ``candidate``) to the new folder ``out``, with its evidence; returns ``out``.

        Raises:
            ExportError: nothing has finished, it does not pass what the plan requires (and not ``despite`` that), or
                ``out`` is taken.
        """
        from tune_rh.results.export import export
        from tune_rh.results.reporting import run_baselines

        paths, history = self._reading.paths, self._reading.history
        data_dir = runs.recorded_data_dir(paths)
        baselines, _ = run_baselines(self._reading, data_dir, keep=False)
        export(paths, history, Path(out), candidate, baselines, despite, runs.companions(history.plan, data_dir))
        return Path(out)


def load_plan(plan: str | Path, *overrides: str) -> Plan:
    """The plan in a TOML file, or one that ships, by name; ``overrides`` are texts such as ``"seeds=[1, 2]"``.

    Raises:
        PlanError: naming the field, its value and what is allowed.
    """
    return _load_plan(find_plan(str(plan)), overrides)


def search(
    plan: Plan | str | Path,
    *,
    overrides: Sequence[str] = (),
    runs_dir: str | Path = "runs",
    data_dir: str | Path | None = None,
    runner: str = "ray",
    address: str = "local",
    slots_max: int | None = None,
    mirror: str | None = None,
    on_event: OnEvent | None = None,
    say: Say | None = None,
    accept: Collection[str] = (),
    strict: bool = False,
    trial: bool = True,
) -> Run:
    """Run a plan (of a search, a race or a comparison) in a new folder below ``runs_dir``; returns it as it ended.

    The first Ctrl-C stops cleanly, where this is called from the main thread: `resume` goes on.

    Args:
        plan: a plan, a TOML file, or the name of a plan that ships.
        overrides: as ``--set`` takes them; for a plan that is read here.
        runs_dir: where runs lie.
        data_dir: where data sets lie (None: ``$TUNE_RH_DATA_DIR``, or ``data``).
        runner: ``ray``, or ``local``: in this process.
        address: of a Ray cluster to join; ``local``: one of its own.
        slots_max: jobs at a time on a cluster whose autoscaler brings nodes for them (None: as many as fit on it now).
        mirror: address below which a copy of the run is kept, as ``s3://bucket/prefix``: `resume` goes on from it.
        on_event: called with each event and the history that has it. What it raises ends the session.
        say: called with each line for people.
        accept: ids of findings of the checks before launch that it goes on despite, such as ``["P20"]``.
        strict: check any run as a long one on an accelerator.
        trial: first take the control through one trial round trip, in seconds: build, step, evaluate, save, load.

    Raises:
        PlanError, PreflightRefused, RunExists, trainables.errors.DataError: before anything is launched.
    """
    from tune_rh.run.execute import Precautions, launch

    if not isinstance(plan, Plan):
        plan = load_plan(plan, *overrides)
    elif overrides:
        raise PlanError(f"overrides = {list(overrides)}: are for a plan that is read; this one is a Plan already")
    trust_modules(*plan.from_outside)
    place = _place(data_dir or runs.default_data_dir(), runner, address, slots_max, mirror)
    precautions = Precautions(frozenset(accept), strict, trial)
    paths, _ = launch(plan, Path(runs_dir), place, _Callbacks(on_event, say), _no_conclusion, precautions)
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
        launch: as for `search`.

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
    return search(plan, **launch)


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
        launch: as for `search`.

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
    return search(plan, **launch)


def resume(
    run: str | Path,
    *,
    overrides: Sequence[str] = (),
    runs_dir: str | Path = "runs",
    data_dir: str | Path | None = None,
    runner: str = "ray",
    address: str = "local",
    slots_max: int | None = None,
    mirror: str | None = None,
    on_event: OnEvent | None = None,
    say: Say | None = None,
    trust: str | None = None,
    accept: Collection[str] = (),
    strict: bool = False,
) -> Run:
    """Go on with a run after a stop or a crash; returns it as it ended. Arguments as for `search` and `load`;
    ``overrides`` extend the plan (more candidates, a budget, resources, diagnostics, further stages).
    A run at an address (``s3://bucket/prefix/NAME``) is fetched first, and its mirror is kept.

    Raises:
        PlanError: ``overrides`` change what may not change.
        RunNotFound, RunLocked, RunMismatch, JournalCorrupt, PreflightRefused: the run cannot go on, and why.
    """
    from tune_rh.run.execute import Precautions, execute
    from tune_rh.run.fetch import find_or_fetch

    if trust is not None:
        trust_modules(trust)
    audience = _Callbacks(on_event, say)
    paths, fetched_from = find_or_fetch(str(run), Path(runs_dir), audience.say)
    place = _place(data_dir or runs.recorded_data_dir(paths), runner, address, slots_max, mirror or fetched_from)
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


class _Callbacks:
    """The `tune_rh.run.execute.Audience` of a caller in Python."""

    def __init__(self, on_event: OnEvent | None, say: Say | None) -> None:
        self._on_event, self._say = on_event, say

    def say(self, line: str) -> None:
        if self._say is not None:
            self._say(line)

    @contextmanager
    def bar(self, title: str) -> Iterator[Progress]:
        self.say(title)
        yield lambda done, total: None

    @contextmanager
    def follow(self, history: History) -> Iterator[Callable[[Event], object]]:
        on_event = self._on_event
        yield lambda event: None if on_event is None else on_event(event, history)


def _find(run: str | Path, runs_dir: str | Path, trust: str | None) -> RunPaths:
    if trust is not None:
        trust_modules(trust)
    return runs.find(str(run), Path(runs_dir).absolute())


def _given(config: str | Path, family: str | None, launch: Launch) -> Given:
    from tune_rh.run.given import given

    return given(str(config), family, Path(launch.get("runs_dir", "runs")).absolute())


def _place(data_dir: str | Path, runner: str, address: str, slots_max: int | None, mirror: str | None) -> Place:
    from tune_rh.run.execute import Place

    if runner not in ("ray", "local"):
        raise PlanError(f"runner = {runner!r}: allowed are 'ray' and 'local'")
    return Place(Path(data_dir).absolute(), runner, address, slots_max, mirror=mirror)


def _no_conclusion(paths: RunPaths, history: History) -> None:
    """Nothing is written at the end: `Run.report` and `Run.export` are the caller's to ask for."""
