"""Launch a plan, or go on with a run on disk: lock it, replay it, give its jobs to a runner. One code path for both.

Nothing is printed here: an `Audience` is told what happens.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from trainables.api import Finding, Progress
from trainables.errors import DataMissing
from trainables.files import make_folder, remove_folder
from trainables.registry import get_family
from tune_rh.decide.scheduler import Finish, scheduler_of
from tune_rh.errors import PlanError, PreflightRefused, storage
from tune_rh.plan.cost import expected
from tune_rh.plan.schema import Plan
from tune_rh.preflight.environment import Env, survey
from tune_rh.record.events import EndReason, FindingAccepted, PlanChanged
from tune_rh.record.extend import extend
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths, locked
from tune_rh.run import preflight, runs
from tune_rh.run.runs import OpenRun, dataset, digest_of, make_data, open_run
from tune_rh.run.session import Listener
from tune_rh.run.signals import clean_stop
from tune_rh.watch.follower import OpenView, catch_up
from tune_rh.watch.mirror import Mirror, Store, check_unused, run_at
from tune_rh.watch.watchers import WatcherLike, find, watcher_views

if TYPE_CHECKING:
    from tune_rh.run.runner import Runner

Conclude = Callable[[RunPaths, History], object]


class Audience(Protocol):
    """Who follows a launch."""

    def say(self, line: str) -> None:
        """Take a line for people."""
        ...

    def bar(self, title: str) -> AbstractContextManager[Progress]:
        """Show how far a piece of work is, while the block runs: it is given what takes (done, total)."""
        ...

    def follow(self, history: History) -> AbstractContextManager[Listener]:
        """Follow a session, while the block runs: it is given what takes each event, once ``history`` has it."""
        ...


@dataclass(frozen=True)
class Outcome:
    """Where a session has left a run.

    Attributes:
        history: of the run.
        ending: ``finished``; ``stopped``: everything is saved; ``quit``: what was not saved yet is trained again.
    """

    history: History
    ending: Literal["finished", "stopped", "quit"]


@dataclass(frozen=True)
class Place:
    """Where and on what a run is to go on.

    Attributes:
        data_dir: where data sets lie.
        runner: ``ray`` or ``local``.
        address: of a Ray cluster to join; ``local``: one of its own.
        slots_max: jobs at a time on a cluster whose autoscaler brings nodes for them; None: as many as fit on it.
        metrics: show the session on Ray's metrics endpoint.
        mirror: address below which a copy of the run is kept.
        ship_data: bring the data set to nodes of the cluster that have not got it.
        watchers: what follows the session, beside those of the plan.

    Raises:
        PlanError: naming the field, its value and what is allowed.
    """

    data_dir: Path
    runner: str = "ray"
    address: str = "local"
    slots_max: int | None = None
    metrics: bool = True
    mirror: str | None = None
    ship_data: bool = False
    watchers: tuple[WatcherLike, ...] = ()

    def __post_init__(self) -> None:
        if self.runner not in ("ray", "local"):
            raise PlanError(f"runner = {self.runner!r}: allowed are 'ray' and 'local'")
        if self.slots_max is not None and self.slots_max < 1:
            raise PlanError(f"--slots-max {self.slots_max}: at least 1")
        if self.slots_max is not None and (self.runner == "local" or self.address == "local"):
            raise PlanError(f"--slots-max {self.slots_max}: is for a Ray cluster to join, with --address")
        if self.ship_data and (self.runner == "local" or self.address == "local"):
            raise PlanError("--ship-data: is for a Ray cluster to join, with --address")
        if self.mirror is not None:
            Store(self.mirror)
        for watcher in self.watchers:
            find(watcher)

    def survey(self, plan: Plan, folder: Path) -> Env:
        """What there is for the jobs of a plan whose run lies in ``folder``."""
        env = survey(plan.resources, folder, address=self.address)
        if self.runner == "local":
            return replace(env, slots=1)
        if env.nodes is None:
            return env
        # A cluster of its own is this machine, unlabelled but for what Ray finds its accelerators to be.
        labels: Mapping[str, str] | None = None if plan.resources.accelerator else {}
        return replace(env, nodes=tuple(replace(node, custom={}, labels=labels) for node in env.nodes))


@dataclass(frozen=True)
class Precautions:
    """How checks before launch are taken.

    Attributes:
        accept: ids of findings that the user wants to go on despite.
        strict: take any run for a long one.
        trial: take the control through one trial round trip.
    """

    accept: frozenset[str] = frozenset()
    strict: bool = False
    trial: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "accept", frozenset(preflight.CALLED.get(name, name) for name in self.accept))
        unknown = [name for name in sorted(self.accept) if not re.fullmatch(r"[A-Z]\d\d", name)]
        if unknown:
            called = ", ".join(preflight.CALLED)
            raise PlanError(f"--accept {unknown[0]}: is not the id of a finding, such as P20, nor any of {called}")


def launch(
    plan: Plan,
    runs_dir: Path,
    place: Place,
    audience: Audience,
    conclude: Conclude,
    precautions: Precautions = Precautions(),
) -> tuple[RunPaths, Outcome]:
    """Check a plan, freeze it into a new run in ``runs_dir``, and run it; see `execute`.

    Raises:
        PlanError, PreflightRefused, RunExists: before anything is written.
        trainables.errors.DataError: the data set cannot be made, or a config does not fit it.
    """
    for warning in preflight.check_plan(plan):
        audience.say(f"warning: {warning}")
    runs.check_lasting(runs_dir, "--runs-dir")
    runs.check_lasting(place.data_dir, "--data-dir")
    try:
        make_folder(runs_dir.absolute())
    except OSError as error:
        raise PlanError(f"--runs-dir {runs_dir}: cannot be made ({error.strerror})") from error
    found = preflight.check_machine(plan, place.survey(plan, runs_dir), strict=precautions.strict)
    preflight.refuse(found, precautions.accept)
    root = runs_dir.absolute() / plan.name
    runs.check_free(root)
    if place.mirror is not None:
        check_unused(run_at(place.mirror, plan.name))
    prepare_data(plan, place.data_dir, audience)
    accepted = _try(plan, place, audience, precautions) if precautions.trial else []
    paths = runs.create(plan, root, place.data_dir, accepted)
    audience.say(f"Run {plan.name} in {paths.root}")
    try:
        return paths, execute(paths, place, audience, conclude, precautions)
    except PreflightRefused:
        # What a cluster can give is known once it is joined; a run in which nothing began would only be in the way.
        remove_folder(paths.root)
        raise


def execute(
    paths: RunPaths,
    place: Place,
    audience: Audience,
    conclude: Conclude,
    precautions: Precautions = Precautions(),
    overrides: Sequence[str] = (),
) -> Outcome:
    """Bring a run to its end, or to a clean stop; at its end ``conclude`` is called while the run is still locked.

    Raises:
        PreflightRefused: it cannot or should not run here, or go on here.
        PlanError: ``overrides`` change what may not change once a run has begun.
        StorageError: the disk is full or the file system failed.
    """
    with storage(paths.root, "resume the run"), locked(paths), _opened(paths, place, audience) as run:
        changed: list[PlanChanged | FindingAccepted] = [*_extended(run, overrides)]
        if changed and run.history.plan.family != run.plan.family and precautions.trial:
            _try(run.history.plan, place, audience, precautions)
        run = replace(run, plan=run.history.plan)
        mirror = _mirror(run, place, audience)
        watched = watcher_views(run.paths, (*run.plan.watch, *place.watchers))
        if isinstance(scheduler_of(run.plan).next(run.history), Finish):
            _record(run, changed, audience)
            audience.say(f"Run {paths.root.name} is finished already.")
            from tune_rh.run.runner import views

            catch_up(run.history, {**views(run), **watched}, audience.say)
            if mirror is not None:
                mirror.catch_up()
        else:
            changed += _accept(run, _check(run, place, precautions), precautions, audience)
            try:
                with _runner(run, place, audience) as (runner, found):
                    changed += _accept(run, found, precautions, audience)
                    # Once nothing is refused: a session that may not begin leaves the run as it was.
                    _record(run, changed, audience)
                    stopped = _drive(run, runner, audience, mirror, watched)
            except KeyboardInterrupt:
                return Outcome(run.history, "quit")
            if stopped:
                return Outcome(run.history, "stopped")
        conclude(paths, run.history)
    return Outcome(run.history, "finished")


@contextmanager
def _opened(paths: RunPaths, place: Place, audience: Audience) -> Iterator[OpenRun]:
    """The run of a folder that this process has locked; its journal is closed afterwards."""
    runs.clear_strays(paths)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = open_run(paths, place.data_dir)
    with closing(run.journal):
        for warning in caught:
            audience.say(f"warning: {warning.message}")
        yield run


def _try(plan: Plan, place: Place, audience: Audience, precautions: Precautions) -> list[Finding]:
    """Take the control through a trial round trip; what the user accepts of its findings."""
    found = preflight.try_control(plan, place.data_dir, here=place.runner == "local")
    preflight.refuse(found, precautions.accept)
    for finding in found:
        audience.say(f"{'warning' if finding.level == 'warn' else 'accepted'}: {finding}")
    return [finding for finding in found if finding.level == "refuse"]


def _check(run: OpenRun, place: Place, precautions: Precautions) -> list[Finding]:
    """What speaks against going on with the run on this machine."""
    total = sum(row.steps for row in expected(run.plan))
    left = max(0.0, 1.0 - run.history.steps_spent / total) if total else 1.0
    env = place.survey(run.plan, run.paths.root)
    machine = preflight.check_machine(run.plan, env, strict=precautions.strict, left=left)
    return preflight.check_past(run.history, precautions.accept) + machine


def _accept(
    run: OpenRun, findings: Sequence[Finding], precautions: Precautions, audience: Audience
) -> list[FindingAccepted]:
    """Say what is a warning; what the user accepts now. It holds for later sessions as well."""
    history = run.history
    before = {event.id for event in history.accepted} - preflight.OF_THE_PAST
    preflight.refuse(findings, before | precautions.accept)
    new = []
    for finding in findings:
        if finding.level == "warn":
            audience.say(f"warning: {finding}")
        elif finding.id not in before:
            new.append(FindingAccepted(finding.id, finding.part, finding.message))
            history.apply(new[-1])
    return new


def _extended(run: OpenRun, overrides: Sequence[str]) -> list[PlanChanged]:
    """The change of the run's plan that ``overrides`` make, if any; its history has it, its journal does not yet."""
    change = extend(run.history, overrides) if overrides else None
    if change is None:
        return []
    preflight.check_plan(run.plan.with_changes(change.changes))
    run.history.apply(change)
    return [change]


def _record(run: OpenRun, events: Iterable[PlanChanged | FindingAccepted], audience: Audience) -> None:
    """Write down what the user has changed and accepted."""
    for event in events:
        run.journal.append(event)
        if isinstance(event, PlanChanged):
            audience.say(f"The plan has changed: {', '.join(event.changes)}")
        else:
            audience.say(f"accepted: {event.id} {event.part}: {event.message}")


def prepare_data(plan: Plan, data_dir: Path, audience: Audience) -> None:
    """Make the plan's data set if it is missing, and check the plan's configs against it.

    Raises:
        trainables.errors.DataCorrupt: it is there and wrong.
        trainables.errors.DataError: it cannot be made, or a config does not fit it.
    """
    family, name = get_family(plan.family), dataset(plan)
    try:
        digest_of(family, name, data_dir)
    except DataMissing:
        audience.say(f"Data set {name!r} of {family.name} is not in {data_dir}: making it.")
        make_data(family, name, data_dir, audience.bar)
    preflight.check_data(plan, data_dir)


@contextmanager
def _runner(run: OpenRun, place: Place, audience: Audience) -> Iterator[tuple[Runner, list[Finding]]]:
    """What runs jobs at ``place``, until the block ends; and what speaks against that."""
    if place.runner == "local":
        from tune_rh.run.local_runner import LocalRunner

        yield LocalRunner(run), []
        return
    from tune_rh.run.ray.admit.admission import admitted
    from tune_rh.run.ray.cluster import connect
    from tune_rh.run.ray.quiet import quiet
    from tune_rh.run.ray.runner import RayRunner

    audience.say("Starting Ray ..." if place.address == "local" else f"Joining Ray at {place.address} ...")
    with (
        quiet(run.paths.ray / "driver.log"),
        connect(
            run.plan.resources, place.address, owner=run.paths.root, slots_max=place.slots_max, say=audience.say
        ) as cluster,
    ):
        if cluster.is_open:
            audience.say(
                f"warning: the cluster at {place.address} asks for no token: whoever reaches its ports can run code on "
                "its nodes. Start it with RAY_AUTH_MODE=token"
            )
        admission, found = None, list[Finding]()
        if place.address != "local":
            admission, found = admitted(run, ship=place.ship_data, say=audience.say)
        where = f"Ray dashboard: {cluster.dashboard} (it asks for a token: `ray get-auth-token` prints it)"
        audience.say(f"{where if cluster.dashboard else 'Ray has no dashboard here'}; {cluster.slots} slots")
        runner = RayRunner(
            run, cluster.slots, cluster.census, admission=admission, metrics=place.metrics, say=audience.say
        )
        yield runner, found


def _mirror(run: OpenRun, place: Place, audience: Audience) -> Mirror | None:
    """What keeps the run's mirror, where there is to be one."""
    if place.mirror is None:
        return None
    store = run_at(place.mirror, run.paths.root.name)
    mirror = Mirror(store, run.paths, run.history, audience.say)
    audience.say(f"Mirror: {store.address}")
    return mirror


def _drive(
    run: OpenRun, runner: Runner, audience: Audience, mirror: Mirror | None, watched: Mapping[str, OpenView]
) -> bool:
    from tune_rh.run.runner import (  # which loads Optuna, and checks before a launch need none
        start_session,
        task_failed,
        views,
    )

    kept = {"views": views(run), "apart": watched}
    session = start_session(run, runner=runner.name, slots=runner.slots, say=audience.say, **kept)
    try:
        with clean_stop(session, audience.say), audience.follow(session.history) as board:
            session.listeners += [board, *([] if mirror is None else [mirror])]
            runner.run(session)
        if session.halted is not None:
            raise task_failed(run, session.halted)
    except BrokenPipeError:
        # The reader of the log has gone (`| head`): as if Ctrl-C had been pressed, with nothing left to tell it.
        session.close("interrupted")
        return True
    except BaseException as error:
        how: EndReason = "halted" if session.halted is not None else "failed"
        session.close("interrupted" if isinstance(error, KeyboardInterrupt) else how)
        raise
    session.close("interrupted" if session.stopping else "finished")
    return session.stopping
