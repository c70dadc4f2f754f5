"""What a runner is, and what every runner of a run on disk needs: a session on it, jobs for workers, failures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from trainables.given.module import is_typed
from trainables.registry import get_family
from trainables.worker.job import MemberJob
from tune_rh.decide.scheduler import RunMember
from tune_rh.errors import FULL, TaskFailed, storage_error, storage_problem
from tune_rh.record.events import Event, Halted, SessionEnded
from tune_rh.record.failure import own_frame
from tune_rh.record.history import History
from tune_rh.run.family_source import family_source
from tune_rh.run.runs import OpenRun, resume_command
from tune_rh.run.session import Listener, Loss, Session
from tune_rh.watch.follower import Follower, OpenView
from tune_rh.watch.snapshots import SnapshotKeeper

_MIN_FREE_BYTES = 16 * 2**20


class Runner(Protocol):
    """Runs jobs somewhere. All runners give the same records for the same plan, time and host aside."""

    name: str
    slots: int

    def run(self, session: Session) -> None:
        """Return when ``session`` is finished, or stopped and every worker has handed its member back."""
        ...


def start_session(
    run: OpenRun,
    *,
    runner: str,
    slots: int,
    views: Mapping[str, OpenView] | None = None,
    apart: Mapping[str, OpenView] = MappingProxyType({}),
    say: Callable[[str], object] = lambda line: None,
) -> Session:
    """A session that writes the run's journal and keeps ``views`` (None: study.db); closing it closes the journal.

    Views that are ``apart`` have a thread to themselves: they may be slow.
    """
    paths = run.paths
    paths.stop_request.unlink(missing_ok=True)

    def ask_workers() -> None:
        with suppress(OSError):  # without the file a worker hands its member back at its next report
            paths.stop_request.touch()

    def let_go(event: Event) -> None:
        if isinstance(event, SessionEnded):
            run.journal.close()
            with suppress(OSError):  # the next session removes it first
                paths.stop_request.unlink(missing_ok=True)

    session = Session(
        run.plan,
        run.history,
        run.journal.hold,
        family_source(run.plan),
        time.time,
        runner=runner,
        slots=slots,
        commit=run.journal.commit,
        tell_workers=ask_workers,
    )
    views = study_view(run) if views is None else views
    followed = [Follower(paths, run.journal.num_events, some, say) for some in (views, apart) if some]
    session.listeners.extend(followed)
    session.listeners.append(let_go)
    return session


def study_view(run: OpenRun) -> Mapping[str, OpenView]:
    """The run's study.db, as a view."""

    def opened(history: History) -> Callable[[Event], object]:
        from tune_rh.watch.study import StudyMirror

        return StudyMirror(run.paths.study, run.plan.name, history)

    return {"study.db": opened}


def views(run: OpenRun) -> Mapping[str, OpenView]:
    """What follows a run beside its session, by name."""

    def board(history: History) -> Listener:
        from tune_rh.watch.tensorboard import TensorBoard  # which no first job waits for

        return TensorBoard(run.paths, history)

    return {"snapshot": partial(SnapshotKeeper, run.paths), **study_view(run), "tensorboard/": board}


def member_job(run: OpenRun, job: RunMember) -> MemberJob:
    """The job as a worker gets it, under a new lease: a worker that still holds an older one gives the member up."""
    plan, member = run.plan, run.history.member(job.member)
    added = run.history.candidates[job.member.candidate].added
    return MemberJob(
        member=job.member,
        family=plan.family,
        config=added.config,
        config_digest=added.config_digest,
        folder=str(run.paths.member(job.member)),
        data_dir=str(run.data_dir),
        objective=plan.objective,
        mode=plan.mode,
        eval_every=plan.eval_every,
        gates=tuple(stage.until_step for stage in plan.stages),
        stop_request=str(run.paths.stop_request),
        lease=next(run.leases),
        save_every=plan.save_every,
        beat_every=plan.rules.live.beat_every,
        rules_off=plan.rules.live.off,
        patience_steps=added.patience_steps or plan.rules.patience_steps,
        device="cuda" if plan.resources.gpu else "cpu",
        threads=plan.resources.threads,
        gpu_fraction=plan.resources.gpu,
        purpose=job.purpose,
        diagnose="analysis.diagnose.in_worker:diagnose",
        diagnostics=(plan.diagnose or ()) if member.tested else plan.require,
        from_step=member.step,
        until_step=job.until_step,
    )


def record_loss(
    run: OpenRun, session: Session, job: RunMember, tried: MemberJob, loss: Loss, *, whole_gpu: bool = False
) -> MemberJob | None:
    """Record that a try of a job was lost: the job as it is tried again, or None if it was given up.

    Args:
        tried: the job as it was given out.
        whole_gpu: whether a whole GPU could be had for it.

    Raises:
        StorageError: the storage failed, too often or for good, which is no fault of the member: it is interrupted.
    """
    problem = storage_problem(loss.error)
    full = problem in FULL or shutil.disk_usage(run.paths.root).free < _MIN_FREE_BYTES
    if full or problem is not None:
        loss = replace(loss, cause="storage")
    resources, alone = session.plan.resources, None
    was_alone = tried.gpu_fraction > resources.gpu
    if loss.cause == "oom" and was_alone:
        alone = False  # there is no more memory to be had
    elif loss.cause == "oom" and whole_gpu and resources.whole_gpu_after_oom and 0 < resources.gpu < 1:
        alone = True
    if not full and session.on_loss(job.member, loss, alone):  # a full disk is not mended by another try
        given = member_job(run, job)
        return replace(given, gpu_fraction=1.0) if alone or was_alone else given
    if loss.cause != "storage":
        session.on_failure(job.member, loss.error)
        return None
    problem = problem or FULL[0]  # not every library says why it could not write
    session.on_interruption(job.member, problem)
    raise storage_error(run.paths.root, f"{job.member} could not go on: {problem}", "resume the run")


def task_failed(run: OpenRun, mistake: Halted) -> TaskFailed:
    """The error that says on which line the session has stopped, and how the run goes on once that is mended."""
    said, _, traceback = mistake.error.partition("\n")
    paths, members = run.paths, ", ".join(map(str, mistake.members))
    if is_typed(run.plan.family):
        name = paths.root.name if paths.root.parent == Path("runs").absolute() else str(paths.root)
        then = f"tune_rh.resume({name!r}, task={get_family(run.plan.family).name})"
    else:
        then = resume_command(paths, "--accept", "code")
    return TaskFailed(
        "\n".join(filter(None, (f"run {paths.root.name!r} has stopped at {said}", own_frame(traceback))))
        + f"\nIt was raised in {members}, and would be in every member: nothing else was tried. Mend it, then: {then}"
    )
