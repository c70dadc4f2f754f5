"""The one loop: ask the scheduler, record, draw, obey the verdict. What differs between a run on disk, a simulation
and a test stands behind ports: where events go, where candidates come from, what time it is.

One thread uses a session. Every change goes through `Session._record`: to the sink, then into the history. What one
call of a method records is committed together before the call returns, and the listeners hear of it after that. The
history may be ahead of the disk within a call; nothing outside ever is: workers and people are told what is durable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from trainables.worker.report import Evaluated, HandedBack, Report, Tested
from tune_rh.decide.mistakes import stopped_by
from tune_rh.decide.scheduler import (
    AskCandidate,
    AskFollowUp,
    Continue,
    Decision,
    Finish,
    Park,
    RunMember,
    Scheduler,
    Wait,
    scheduler_of,
)
from tune_rh.plan.schema import Plan
from tune_rh.record.events import (
    CandidateAdded,
    EndReason,
    Event,
    FollowUpSkipped,
    Halted,
    JobEnded,
    JobRetried,
    JobStarted,
    LossCause,
    MemberId,
    NodeJoined,
    NodeLost,
    Outcome,
    Promoted,
    SeedAdded,
    SessionEnded,
    SessionStarted,
    SlotsChanged,
    SpaceExhausted,
)
from tune_rh.record.failure import headline
from tune_rh.record.history import History

Sink = Callable[[Event], object]
Listener = Callable[[Event], object]
_MOST_OF_ERROR = 4000
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Loss:
    """A try of a job that did not come to its end.

    Attributes:
        cause: of `tune_rh.record.events.JobRetried`.
        error: the traceback that it left, or what is known instead.
        node, pid: where it ran; empty and 0 where that is not known.
    """

    cause: LossCause
    error: str
    node: str = ""
    pid: int = 0


class Source(Protocol):
    """Where candidates come from."""

    def candidate(self, history: History) -> CandidateAdded | SpaceExhausted:
        """The next candidate; or that every config was tried."""
        ...

    def follow_up(self, history: History, asked: AskFollowUp) -> CandidateAdded | FollowUpSkipped:
        """The follow-up that is due; or why it is not made."""
        ...


def _durable(method: Callable[Concatenate[Session, _P], _T]) -> Callable[Concatenate[Session, _P], _T]:
    """``method``, which returns or raises once what it has recorded is committed."""

    @wraps(method)
    def committed(session: Session, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(session, *args, **kwargs)
        finally:
            session._commit()

    return committed


class Session:
    """One driver's hold of a search, from `SessionStarted` to `SessionEnded`.

    The session alone changes its ``history``; ``sink`` has each event before, and ``commit`` returns once all that the
    sink has is durable. If it raises, the events stay with the sink, for the next commit. ``clock`` gives the times in
    events, and ``tell_workers`` has every worker hand its member back. Without a ``scheduler`` the plan's own decides.
    """

    def __init__(
        self,
        plan: Plan,
        history: History,
        sink: Sink,
        source: Source,
        clock: Callable[[], float],
        *,
        runner: str,
        slots: int,
        commit: Callable[[], object] = lambda: None,
        scheduler: Scheduler | None = None,
        tell_workers: Callable[[], object] = lambda: None,
    ) -> None:
        self.plan, self.history = plan, history
        self.listeners: list[Listener] = []
        self._sink, self._commit_sink, self._source, self._clock = sink, commit, source, clock
        self._scheduler = scheduler or scheduler_of(plan)
        self._tell_workers = tell_workers
        self.is_held = False
        """Set by a runner while a job waits for what others hold: no other one starts."""
        self.halted: Halted | None = None
        """The mistake on which this session stops."""
        self._stopping = False
        self._repeated_s: defaultdict[MemberId, float] = defaultdict(float)
        self._untold: list[Event] = []
        self._record(SessionStarted(history.session + 1, clock(), runner, slots))
        self._commit()

    @property
    def stopping(self) -> bool:
        """Whether a clean stop was requested."""
        return self._stopping

    def request_stop(self) -> None:
        """Start nothing new and have every worker hand its member back; safe to call from a signal handler."""
        self._stopping = True
        self._tell_workers()

    @_durable
    def next_job(self, prefer: MemberId | None = None, node: str = "") -> RunMember | Wait | Finish:
        """The job that a free slot is to run, recorded as started; ``prefer`` is a member that it holds in memory.

        ``node`` names the machine of the slot, where it is known.
        """
        while True:
            if self._stopping:
                return Wait() if self.history.running else Finish()
            if self._is_full:
                return Wait()
            decision = self._decide(prefer)
            if isinstance(decision, AskCandidate):
                added = self._source.candidate(self.history)
                if isinstance(added, CandidateAdded):
                    added = replace(added, gain=decision.gain, towards=decision.towards)
                self._record(added)
            elif isinstance(decision, AskFollowUp):
                self._record(self._source.follow_up(self.history, decision))
            elif isinstance(decision, RunMember):
                self._start(decision, node)
                return decision
            elif isinstance(decision, Wait | Finish):
                return decision

    @_durable
    def on_report(self, report: Report, node: str = "") -> bool:
        """Take a worker's report in. True: the worker goes on with this member; False: it lets go of it.

        ``node`` names the machine of the worker, where it is known.
        """
        member = report.member
        if isinstance(report, HandedBack):
            self._end(member, "interrupted", "stop requested")
            if not self._stopping:
                # The stop file was made by another hand: a slot that went on would hand the same member back for ever.
                self.request_stop()
            return False
        if isinstance(report, Evaluated):
            if report.step <= self.history.member(member).step:
                # Its checkpoint was older than its last report: what is on record already costs time, and no more.
                self._repeated_s[member] += report.train_s + report.eval_s
                return self._unless_stopping(member)
            report = replace(report, repeated_s=self._repeated_s.pop(member, 0.0))
        self._record(report)
        if not isinstance(report, Evaluated):
            self._end(member, "tested" if isinstance(report, Tested) else "diagnosed", "")
            return False
        verdict = self._scheduler.verdict(self.history, member)
        if isinstance(verdict, Continue):
            return self._unless_stopping(member)
        # The job ends before the next is asked for: only then has the member arrived at its gate, and may start again.
        self._end(member, "parked" if isinstance(verdict, Park) else verdict.outcome, verdict.reason)
        return self._goes_on(member, node)

    @_durable
    def on_loss(self, member: MemberId, loss: Loss, alone: bool | None = None) -> bool:
        """Whether the job is to be tried again, which is then on record; if not, its runner ends it.

        A member answers for what its own code raises, not for the machines that it runs on: what the code of all
        members raises stops the session. Where memory has run out a job may be tried ``alone`` on a whole GPU; False:
        it was. None: the plan says how often it is tried.
        """
        if loss.cause == "exception" and not self._stopping:
            self._halt(member, loss.error)
        resources = self.plan.resources
        allowed = resources.max_failures if loss.cause in ("exception", "oom") else resources.max_losses
        few = self.history.losses.of_job(member, loss.cause) < allowed
        if self._stopping or not (few if alone is None else alone):
            return False
        step, reason = self.history.member(member).step, _sayable(headline(loss.error))
        reason += "; next alone on a whole GPU" if alone else ""
        self._record(JobRetried(member, step, loss.node, loss.pid, loss.cause, reason, self._clock()))
        return True

    @_durable
    def on_failure(self, member: MemberId, error: str) -> None:
        """End a job that was given up after its retries; ``error`` is its traceback, of which the record has first
        what it ends with.
        """
        if self._stopping:
            self._end(member, "interrupted", "stop requested")
        else:
            self._end(member, "failed", _told(error))

    @_durable
    def on_nodes(self, joined: Iterable[str], lost: Iterable[str], slots: int) -> None:
        """Take in which machines came and went, by name, and how many jobs may run at a time now."""
        for node in joined:
            self._record(NodeJoined(node, self._clock()))
        for node in lost:
            self._record(NodeLost(node, self._clock()))
        if slots != self.history.slots:
            self._record(SlotsChanged(slots, self._clock()))

    @_durable
    def on_interruption(self, member: MemberId, reason: str) -> None:
        """End a job through no fault of its member, which a later session takes up again."""
        self._end(member, "interrupted", reason)

    @_durable
    def close(self, reason: EndReason) -> None:
        """Let go of the search: ``finished``, ``interrupted``, ``failed``, or ``halted`` by a mistake in its task."""
        for member in list(self.history.running):
            self._end(member, "interrupted", "the driver ended")
        self._record(SessionEnded(self.history.session, self._clock(), reason))

    def _halt(self, member: MemberId, error: str) -> None:
        """Stop if ``error`` is a mistake in the code of all members: that is on record before anything else of it."""
        members = stopped_by(self.history, member, _sayable(headline(error)))
        if members:
            self.halted = Halted(members, _told(error), self._clock())
            self._record(self.halted)
            self.request_stop()

    @property
    def _is_full(self) -> bool:
        return self.is_held or len(self.history.running) >= self.history.slots

    def _unless_stopping(self, member: MemberId) -> bool:
        """Whether a member that has not come to the end of its job goes on; if not, its job ends here."""
        if self._stopping:
            self._end(member, "interrupted", "stop requested")
        return not self._stopping

    def _goes_on(self, member: MemberId, node: str) -> bool:
        """Whether the slot's next job is this very member, so that its worker can keep it in memory."""
        if self._stopping or self._is_full:  # the slot may have gone with its node
            return False
        decision = self._decide(member)
        if not isinstance(decision, RunMember) or decision.member != member:
            return False
        # A worker reads the test split by itself only at the end of the last stage.
        at_end = self.history.member(member).step == self.plan.stages[-1].until_step
        if decision.purpose == "diagnose" or (decision.purpose == "test" and not at_end):
            return False
        self._start(decision, node)
        return True

    def _decide(self, prefer: MemberId | None) -> Decision:
        while True:
            decision = self._scheduler.next(self.history, prefer)
            if not isinstance(decision, Promoted | SeedAdded):
                return decision
            self._record(decision)  # each changes what the scheduler sees: it is asked again

    def _start(self, job: RunMember, node: str) -> None:
        self._record(JobStarted(job.member, job.stage, job.until_step, self._clock(), job.purpose, node))

    def _end(self, member: MemberId, outcome: Outcome, reason: str) -> None:
        self._record(JobEnded(member, outcome, reason, self._clock()))

    def _record(self, event: Event) -> None:
        self._sink(event)
        self.history.apply(event)
        self._untold.append(event)

    def _commit(self) -> None:
        self._commit_sink()
        while self._untold:  # one by one: where a watcher raises, the next commit tells what follows
            event = self._untold.pop(0)
            for listener in self.listeners:
                listener(event)


def _told(error: str) -> str:
    """A traceback as the record has it: first what it ends with."""
    return _sayable(f"{headline(error)}\n\n{error.strip()[-_MOST_OF_ERROR:]}")


def _sayable(error: str) -> str:
    """A path that is no UTF-8 stands in a traceback as surrogates, which JSON cannot hold."""
    return error.encode(errors="replace").decode()
