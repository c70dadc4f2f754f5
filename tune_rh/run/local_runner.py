"""Runs jobs one after another in this process, without Ray: for debuggers, tests and single small machines."""

from __future__ import annotations

import traceback
from dataclasses import replace

from trainables.worker.job import MemberJob
from trainables.worker.member import MemberRun
from trainables.worker.report import Evaluated, HandedBack, MemberId
from tune_rh.decide.scheduler import Finish, Wait
from tune_rh.run.runner import member_job, record_failure
from tune_rh.run.runs import OpenRun
from tune_rh.run.session import Session


class LocalRunner:
    """One slot, in process. A job that raises is tried again from its last checkpoint, as on Ray."""

    name = "local"
    slots = 1

    def __init__(self, run: OpenRun) -> None:
        self._run = run

    def run(self, session: Session) -> None:
        """See `tune_rh.run.runner.Runner`."""
        last: MemberId | None = None
        while True:
            job = session.next_job(prefer=last)
            if isinstance(job, Finish):
                return
            assert not isinstance(job, Wait), "one slot that runs nothing has nothing to wait for"
            last = job.member
            self._run_job(session, member_job(self._run, job))

    def _run_job(self, session: Session, job: MemberJob) -> None:
        import torch

        torch.set_num_threads(session.plan.resources.cpu)
        failures = 0
        run: MemberRun | None = None
        while True:
            try:
                run = run or MemberRun(job)
                report = run.advance()
            except Exception:  # noqa: BLE001 - the trial boundary: it becomes a record with its traceback
                run, failures = None, failures + 1
                if failures > session.plan.resources.max_failures:
                    record_failure(self._run, session, job.member, traceback.format_exc())
                    return
                # Reports that came before the failure are not repeated.
                job = replace(job, from_step=session.history.member(job.member).step)
                continue
            if not session.on_report(report):
                if isinstance(report, Evaluated | HandedBack):
                    run.save()
                return
