"""What stands between Ray Tune's trials and the session: which trial runs which job, and what is heard of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from trainables.worker.job import MemberJob
from trainables.worker.report import Report
from tune_rh.decide.scheduler import Finish, RunMember, Wait
from tune_rh.record.events import MemberId
from tune_rh.run.ray.nodes import Census, Change, names
from tune_rh.run.ray.warm_up import WarmUp
from tune_rh.run.runner import member_job, record_loss
from tune_rh.run.runs import OpenRun
from tune_rh.run.session import Loss, Session


class Bridge:
    """What searcher and scheduler share. Tune pickles both for a restore that is not used: nothing goes along."""

    def __init__(self, run: OpenRun, session: Session, warm_up: WarmUp, census: Census | None = None) -> None:
        self.session, self.warm_up, self._census = session, warm_up, census
        self.jobs: dict[str, RunMember] = {}
        self.error: BaseException | None = None
        self.is_over = False
        self._run = run
        self.no_job = {"job": None, "family": run.plan.family, "run": str(run.paths.root)}
        self._again: deque[RunMember] = deque()
        self._given: dict[MemberId, MemberJob] = {}
        self._nodes: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    @property
    def worker(self) -> str:
        """The name of a worker that is started now: the first one, or for one that was lost."""
        return f"{self.session.plan.name} worker {self.warm_up.num_asked + len(self.session.history.losses.all)}"

    def suggest(self, trial_id: str) -> MemberJob | Wait | Finish:
        """The job of a new trial: one that was lost before any other."""
        job: RunMember | Wait | Finish = Wait() if self.jobs else Finish()
        if self.error is None:
            with self._ours():
                if self.session.stopping:
                    self._let_go()
                job = self._again.popleft() if self._again else self.session.next_job()
        self.is_over = isinstance(job, Finish)
        if not isinstance(job, RunMember):
            return job
        self.jobs[trial_id] = job
        given = self._given.get(job.member) or member_job(self._run, job)
        self._given[job.member] = given
        return given

    def report(self, trial_id: str, report: Report, node: str) -> bool:
        """Whether the trial goes on; ``node`` is the id of its node."""
        goes_on = False
        if self.error is None and trial_id in self.jobs:
            with self._ours():
                goes_on = self.session.on_report(report, self.name(node))
                if not goes_on:
                    self.ended(trial_id)
        return goes_on

    def lost(self, trial_id: str, loss: Callable[[], Loss]) -> None:
        """A trial has failed; ``loss`` is asked why."""
        self.warm_up.note(trial_id)  # a worker that cannot start shows in its first job, with a record
        job = self.jobs.get(trial_id)
        tried = self._given.get(job.member) if job is not None else None
        self.ended(trial_id)
        if job is not None and tried is not None and self.error is None:
            whole_gpu = self._census is None or self._census.whole_gpu  # an autoscaler may bring one
            with self._ours():
                given = record_loss(self._run, self.session, job, tried, loss(), whole_gpu=whole_gpu)
                if given is not None:
                    self._given[job.member] = given
                    self._again.append(job)
                    self._hold()

    def on_nodes(self, change: Change) -> None:
        """Nodes may have come and gone."""
        if self.error is None:
            with self._ours():
                self.session.on_nodes(change.joined, change.lost, change.slots)
                self._hold()

    def ended(self, trial_id: str) -> None:
        """A trial is over, whether or not it was to go on."""
        job = self.jobs.pop(trial_id, None)
        if job is not None:
            with suppress(OSError):  # it is of one try, and asks nothing of another
                self._given.pop(job.member).hand_back_request.unlink()
            self._hold()

    def _hold(self) -> None:
        """Start no other job while one waits for a whole GPU: each share that is freed would be taken again at once.

        Slots account for a job that has one. Where others hold what it waits for, the rest goes on.
        """
        share, census = self.session.plan.resources.gpu, self._census
        num_alone = sum(given.gpu_fraction > share for given in self._given.values())
        self.session.is_held = census is not None and census.whole_gpu and num_alone > census.num_alone

    def hand_over(self, trial_id: str) -> None:
        """Have the trial's worker save its member and let it go, to go on elsewhere."""
        job = self.jobs.get(trial_id)
        if job is not None:
            with suppress(OSError):  # it is asked again, and its node's end is a loss like any other
                self._given[job.member].hand_back_request.touch()

    def _let_go(self) -> None:
        """A session that is to stop starts nothing again."""
        while self._again:
            self.session.on_interruption(self._again.popleft().member, "stop requested")

    def name(self, node: str) -> str:
        """The name of the node with this id."""
        if node not in self._nodes:
            self._nodes = names()
        return self._nodes.get(node, "")

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """An error of ours ends the session, not Tune's loop: `RayRunner.run` raises it once that is over."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised again, see above
            self.error = error
            self.session.request_stop()
