"""Runs jobs one after another in this process, without Ray: for debuggers, tests and single small machines."""

from __future__ import annotations

import os
import socket
import traceback

from trainables.errors import OutOfMemory
from trainables.worker.job import MemberJob
from trainables.worker.member import MemberRun
from trainables.worker.report import Evaluated, HandedBack, MemberId
from tune_rh.decide.scheduler import Finish, RunMember, Wait
from tune_rh.record.events import LossCause
from tune_rh.run.runner import member_job, record_loss
from tune_rh.run.runs import OpenRun
from tune_rh.run.session import Loss, Session


class LocalRunner:
    """One slot, in process. A job that raises is tried again from its last checkpoint, as on Ray."""

    name = "local"
    slots = 1

    def __init__(self, run: OpenRun) -> None:
        self._run = run
        self._node = socket.gethostname()

    def run(self, session: Session) -> None:
        """See `tune_rh.run.runner.Runner`."""
        last: MemberId | None = None
        while True:
            job = session.next_job(last, self._node)
            if isinstance(job, Finish):
                return
            assert not isinstance(job, Wait), "one slot that runs nothing has nothing to wait for"
            last = job.member
            self._run_job(session, job)

    def _run_job(self, session: Session, job: RunMember) -> None:
        import torch

        torch.set_num_threads(session.plan.resources.threads)
        given: MemberJob | None = member_job(self._run, job)
        run: MemberRun | None = None
        while given is not None:
            try:
                run = run or MemberRun(given)
                report = run.advance()
            except Exception as error:  # noqa: BLE001 - the trial boundary: it becomes a record with its traceback
                run = None
                cause: LossCause = "oom" if isinstance(error, OutOfMemory) else "exception"
                loss = Loss(cause, traceback.format_exc(), self._node, os.getpid())
                given = record_loss(self._run, session, job, given, loss, whole_gpu=True)
                continue
            if not session.on_report(report, self._node):
                if isinstance(report, Evaluated | HandedBack):
                    run.save()
                return
