"""Run, or go on with, a run on disk: lock it, replay it, give its jobs to a runner, and say what came of it.

`tune-rh search` and `tune-rh resume` are this one code path.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from trainables.api import Family, Progress
from trainables.errors import DataMissing
from trainables.registry import get_family
from tune_rh.cli import terminal as display
from tune_rh.cli.conclude import conclude
from tune_rh.decide.scheduler import Finish, scheduler_of
from tune_rh.errors import DONE, INTERRUPTED, SOME_MEMBERS_FAILED
from tune_rh.plan.schema import Plan
from tune_rh.record.history import History
from tune_rh.record.journal import RunLock, RunPaths
from tune_rh.run import preflight
from tune_rh.run.runs import OpenRun, data_source, dataset, open_run, recorded_data_dir, resume_command

if TYPE_CHECKING:
    from tune_rh.run.runner import Runner
    from tune_rh.run.session import Session


def execute(paths: RunPaths, data_dir: Path, *, runner: str, address: str, to: Console) -> int:
    """Bring the run to its end, or to a clean stop. Returns the exit code."""
    with RunLock(paths):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = open_run(paths, data_dir)
        for warning in caught:
            to.print(f"warning: {warning.message}", soft_wrap=True)
        preflight.check_machine(run.plan, paths.root, local=runner == "local")
        if isinstance(scheduler_of(run.plan).next(run.history), Finish):
            to.print(f"Run {paths.root.name} is finished already.")
            stopped = False
        else:
            try:
                stopped = _run(run, runner, address, to)
            except KeyboardInterrupt:
                to.print("Quit at once: what was not saved yet is trained again. Go on with:")
                _say_how_to_resume(paths, data_dir, runner, address, to)
                return INTERRUPTED
        if stopped:
            to.print("Stopped; everything is saved. Go on with:")
            _say_how_to_resume(paths, data_dir, runner, address, to)
            return INTERRUPTED
        conclude(paths, run.history, data_dir, to)
    return SOME_MEMBERS_FAILED if _failed(run.history, to) else DONE


def prepare_data(plan: Plan, data_dir: Path, to: Console) -> None:
    """Make the plan's data set if it is missing, and check the plan's configs against it.

    Raises:
        trainables.errors.DataCorrupt: it is there and wrong.
        trainables.errors.DataError: it cannot be made, or a config does not fit it.
    """
    make_data(get_family(plan.family), dataset(plan), data_dir, to, only_if_missing=True)
    preflight.check_data(plan, data_dir)


def make_data(family: Family, name: str, data_dir: Path, to: Console, *, only_if_missing: bool = False) -> Path:
    """Make a data set with a progress bar."""
    source = data_source(family)
    if only_if_missing:
        try:
            source.digest(name, data_dir)
            return data_dir
        except DataMissing:
            to.print(f"Data set {name!r} of {family.name} is not in {data_dir}: making it.", soft_wrap=True)
    return with_bar(f"{family.name} {name}", to, lambda progress: source.prepare(name, data_dir, progress))


def with_bar(title: str, to: Console, work: Callable[[Progress], Path]) -> Path:
    """Do ``work`` under a progress bar, on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=to, disable=not to.is_terminal) as bar:
        row = bar.add_task(title, total=None)
        return work(lambda done, total: bar.update(row, completed=done, total=total))


def _run(run: OpenRun, runner: str, address: str, to: Console) -> bool:
    """Start the runner; returns whether the search was stopped before its end."""
    if runner == "local":
        from tune_rh.run.local_runner import LocalRunner

        return _drive(run, LocalRunner(run), to)
    from tune_rh.run.ray_cluster import connect
    from tune_rh.run.ray_runner import RayRunner

    to.print("Starting Ray ..." if address == "local" else f"Joining Ray at {address} ...")
    with connect(run.plan.resources, address, owner=run.paths.root) as cluster:
        to.print(f"Ray dashboard: {cluster.dashboard or 'none'} (its token: ray get-auth-token); {cluster.slots} slots")
        return _drive(run, RayRunner(run, cluster.slots), to)


def _drive(run: OpenRun, runner: Runner, to: Console) -> bool:
    from tune_rh.run.runner import start_session
    from tune_rh.watch.tensorboard import TensorBoard

    session = start_session(run, runner=runner.name, slots=runner.slots)
    session.watchers.append(TensorBoard(run.paths, run.history))
    try:
        with _clean_stop(session, to), display.Progress(session.history, to, runner.slots) as progress:
            session.watchers.append(progress)
            runner.run(session)
    except BrokenPipeError:
        # Who read the log has gone (`| head`): as if Ctrl-C had been pressed, with nobody left to tell.
        session.close("interrupted")
        return True
    except BaseException as error:
        session.close("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    session.close("interrupted" if session.stopping else "finished")
    return session.stopping


@contextmanager
def _clean_stop(session: Session, to: Console) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP asks for a clean stop; a second one ends the process where it is.

    A SIGHUP that is ignored already stays so: that is what nohup asks for.
    """

    def stop(number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            _leave_terminal()
        if session.stopping:
            raise KeyboardInterrupt
        session.request_stop()
        with suppress(RuntimeError):  # the signal came in the middle of a line that is being written
            to.print(f"{signal.Signals(number).name}: saving what runs; again to quit at once")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_terminal() -> None:
    """After a hang-up the terminal is gone, and every further word to it would be an error; files and pipes stay."""
    for descriptor in (1, 2):
        if os.isatty(descriptor):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)


def _say_how_to_resume(paths: RunPaths, data_dir: Path, runner: str, address: str, to: Console) -> None:
    options = [] if runner == "ray" else ["--runner", runner]
    options += [] if address == "local" else ["--address", address]
    options += [] if data_dir == recorded_data_dir(paths) else ["--data-dir", str(data_dir)]
    to.print(f"  {resume_command(paths, *options)}", soft_wrap=True)


def _failed(history: History, to: Console) -> bool:
    members = [m for c in history.candidates.values() for m in c.members.values()]
    failed = [m for m in members if m.status == "failed"]
    for member in failed:
        last = member.reason.strip().splitlines()[-1] if member.reason.strip() else "no message"
        to.print(f"warning: {member.id} failed after its retries: {last}", soft_wrap=True)
    unread = [str(m.id) for m in members if m.tested and not m.tested.metrics]
    if unread:
        to.print(f"warning: reading test failed for {', '.join(unread)}; journal.jsonl says why", soft_wrap=True)
    blind = [str(m.id) for m in members if history.plan.diagnose and m.diagnosed and not m.diagnosed.verdicts]
    if blind:
        to.print(f"warning: the diagnosis of {', '.join(blind)} failed; `tune-rh diagnose` shows why", soft_wrap=True)
    return bool(failed or unread or blind)
