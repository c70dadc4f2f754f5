"""A search under way: asks the policy, writes the journal, draws candidates. Runners call it and obey.

One thread uses it. Every change goes through `Search._record`: journal first, then history, then those who watch.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from search_spaces.registry import get_space
from trainables.member_job import MemberJob
from trainables.registry import build_config, get_family
from trainables.report import Evaluated, HandedBack, Report, Tested
from tune_rh import compare, follow_ups, sampler
from tune_rh.configs import named_config
from tune_rh.errors import PlanError, StorageFull
from tune_rh.events import (
    CandidateAdded,
    EndReason,
    Event,
    FollowUpSkipped,
    JobEnded,
    JobStarted,
    MemberId,
    Origin,
    Outcome,
    SessionEnded,
    SessionStarted,
    SpaceExhausted,
)
from tune_rh.plan_file import explain
from tune_rh.policy import (
    AddSeed,
    AskCandidate,
    AskFollowUp,
    Continue,
    Decision,
    Finish,
    Park,
    Promote,
    RunMember,
    Wait,
    next_job,
    verdict,
)
from tune_rh.runs import OpenRun
from tune_rh.study import StudyMirror

_MIN_FREE_BYTES = 16 * 2**20


class Search:
    """The state machine between a runner and the run on disk."""

    def __init__(self, run: OpenRun, *, runner: str, slots: int) -> None:
        self.run = run
        self.plan = run.plan
        self.history = run.history
        self.slots = slots
        self.watchers: list[Callable[[Event], None]] = []
        self._family = get_family(run.plan.family)
        self._space = get_space(run.plan.family, run.plan.space) if run.plan.space else None
        self._num_jobs = 0
        self._stopping = False
        run.paths.stop_request.unlink(missing_ok=True)
        self._mirror = StudyMirror(run.paths.study, run.plan.name, run.history)
        self._record(SessionStarted(run.history.session + 1, time.time(), runner, slots))

    @property
    def stopping(self) -> bool:
        """Whether a clean stop was asked for."""
        return self._stopping

    def request_stop(self) -> None:
        """Start nothing new and have every worker hand its member back; safe to call from a signal handler."""
        self._stopping = True
        self.run.paths.stop_request.touch()

    def next_job(self, prefer: MemberId | None = None) -> MemberJob | Wait | Finish:
        """The job that a free slot is to run, recorded as started."""
        while True:
            if self._stopping:
                return Wait() if self.history.running else Finish()
            if len(self.history.running) >= self.slots:
                return Wait()
            decision = self._decide(prefer)
            if isinstance(decision, AskCandidate):
                self._add_candidate()
            elif isinstance(decision, AskFollowUp):
                self._add_follow_up(decision)
            elif isinstance(decision, RunMember):
                self._start(decision)
                return self._job(decision)
            elif isinstance(decision, Wait | Finish):
                return decision

    def on_report(self, report: Report) -> bool:
        """Take a worker's report in. True: the worker goes on with this member; False: it lets go of it."""
        member = report.member
        if isinstance(report, HandedBack):
            self._end(member, "interrupted", "stop requested")
            return False
        self._record(report)
        if not isinstance(report, Evaluated):
            self._end(member, "tested" if isinstance(report, Tested) else "diagnosed", "")
            return False
        said = verdict(self.plan, self.history, member)
        if isinstance(said, Continue):
            return True
        if isinstance(said, Park):
            self._end(member, "parked", said.reason)
        else:
            self._end(member, said.outcome, said.reason)
        return self._goes_on(member)

    def on_failure(self, member: MemberId, error: str) -> None:
        """A job was given up after its retries; ``error`` is its traceback."""
        free = shutil.disk_usage(self.run.paths.root).free
        if free < _MIN_FREE_BYTES:
            self._end(member, "interrupted", "disk full")
            raise StorageFull(
                f"{self.run.paths.root}: the disk is full ({free // 2**20} MiB free), and {member} could not save. "
                "Nothing that was recorded is lost. Free some space, then resume the run"
            )
        if self._stopping:
            self._end(member, "interrupted", "stop requested")
            return
        # A path that is no UTF-8 stands in a traceback as surrogates, which JSON cannot hold.
        self._end(member, "failed", error.strip()[-4000:].encode(errors="replace").decode())

    def close(self, reason: EndReason) -> None:
        """Let go of the run: ``finished``, ``interrupted`` or ``failed``."""
        for member in list(self.history.running):
            self._end(member, "interrupted", "the driver ended")
        self._mirror.sync(finished=reason == "finished")
        self._record(SessionEnded(self.history.session, time.time(), reason))
        self.run.journal.close()
        self.run.paths.stop_request.unlink(missing_ok=True)

    def _goes_on(self, member: MemberId) -> bool:
        """Whether the slot's next job is this very member, so that its worker can keep it in memory."""
        if self._stopping:
            return False
        decision = self._decide(member)
        if not isinstance(decision, RunMember) or decision.member != member:
            return False
        # A worker reads the test split by itself only at the end of the last stage.
        at_end = self.history.member(member).step == self.plan.stages[-1].until_step
        if decision.purpose == "diagnose" or (decision.purpose == "test" and not at_end):
            return False
        self._start(decision)
        return True

    def _decide(self, prefer: MemberId | None) -> Decision:
        while True:
            decision = next_job(self.plan, self.history, prefer)
            if not isinstance(decision, Promote | AddSeed):
                return decision
            self._record(decision.event)
            self._mirror.update(self.history.candidates[decision.event.candidate])

    def _start(self, job: RunMember) -> None:
        self._record(JobStarted(job.member, job.stage, job.until_step, time.time(), job.purpose))

    def _end(self, member: MemberId, outcome: Outcome, reason: str) -> None:
        self._record(JobEnded(member, outcome, reason, time.time()))
        self._mirror.update(self.history.candidates[member.candidate])

    def _record(self, event: Event) -> None:
        self.run.journal.append(event)
        self.history.apply(event)
        for watcher in self.watchers:
            watcher(event)

    def _job(self, job: RunMember) -> MemberJob:
        self._num_jobs += 1
        plan, added = self.plan, self.history.candidates[job.member.candidate].added
        return MemberJob(
            member=job.member,
            family=plan.family,
            config=added.config,
            config_digest=added.config_digest,
            folder=str(self.run.paths.member(job.member)),
            data_dir=str(self.run.data_dir),
            objective=plan.objective,
            mode=plan.mode,
            eval_every=plan.eval_every,
            gates=tuple(stage.until_step for stage in plan.stages),
            stop_request=str(self.run.paths.stop_request),
            lease=f"{self.history.session}.{self._num_jobs}",
            save_every=plan.save_every,
            patience_steps=added.patience_steps or plan.rules.patience_steps,
            device="cuda" if plan.resources.gpu else "cpu",
            threads=plan.resources.cpu,
            gpu_fraction=plan.resources.gpu,
            purpose=job.purpose,
            diagnose="tune_rh.diagnosis:diagnose",
            diagnostics=(plan.diagnose or ()) if self.history.member(job.member).tested else plan.require,
            from_step=self.history.member(job.member).step,
            until_step=job.until_step,
        )

    def _add_candidate(self) -> None:
        """The control first, then references, presets, probes or draws; what is known already is passed over."""
        history, plan = self.history, self.plan
        if not history.candidates:
            self._add_named(plan.control, "control" if plan.has_control else "preset")
            return
        for name in plan.references[len(history.references) :]:
            self._add_named(name, "reference")
            return
        for name in plan.presets:
            config, patience = named_config(plan, name)
            if not history.knows(config.digest(), patience):
                self._add_named(name, "preset")
                return
        if plan.compare is not None:
            self._add_probe()
            return
        if self._space is None:  # presets that were passed over leave some of num_candidates open
            self._record(SpaceExhausted(0))
            return
        for attempt in range(sampler.MAX_DRAWS):
            draw = sampler.draw(plan.sampler, self._space, history, attempt)
            config = self._resolve(draw.config, self._space.base)
            if not history.knows(config.digest()):
                self._add(config, "sampler", draw=draw)
                return
        self._record(SpaceExhausted(sampler.MAX_DRAWS))

    def _add_named(self, name: str, origin: Origin) -> None:
        config, patience = named_config(self.plan, name)
        enters = len(self.plan.stages) if origin == "reference" else 0
        self._add(config, origin, name, patience_steps=patience, enters=enters)

    def _add_probe(self) -> None:
        keys = compare.next_probe(self.history)
        assert keys is not None, "the policy asks only while a probe is wanted"
        fields = compare.probe_fields(self.history, keys)
        patience = fields.pop(compare.PATIENCE, None)
        label = f"{self.plan.control} with {', '.join(sorted(keys))} of {self.plan.presets[0]}"
        self._add(build_config(self._family, fields), "probe", label, patience_steps=patience)

    def _add_follow_up(self, asked: AskFollowUp) -> None:
        """Around the winner's resolved config and with its patience; one that cannot be made, or is known, is noted."""
        history, change = self.history, follow_ups.changes(self.plan)[asked.number]
        parent = history.candidates[asked.parent].added
        label, patience = follow_ups.label(asked.parent, change.fields), parent.patience_steps
        try:
            config = build_config(self._family, parent.config, change.fields)
        except ValidationError as error:
            self._record(FollowUpSkipped(asked.parent, label, explain(error, label)))
            return
        known = history.named(config.digest(), patience)
        if known is not None:
            self._record(FollowUpSkipped(asked.parent, label, f"{known} is the same config"))
            return
        enters = change.follow_up.enters
        self._add(config, "follow_up", label, patience_steps=patience, parent=asked.parent, enters=enters)

    def _add(
        self,
        config: Any,
        origin: Origin,
        label: str = "",
        draw: sampler.Draw | None = None,
        patience_steps: int | None = None,
        parent: str | None = None,
        enters: int = 0,
    ) -> None:
        candidate = f"c{len(self.history.candidates):04d}"
        fields = config.model_dump(mode="json")
        draw = draw or self._as_draw(config)
        params = draw.params if draw else {}
        distributions = draw.distributions if draw else {}
        facts = (candidate, fields, config.digest(), origin, label, params, distributions)
        self._record(CandidateAdded(*facts, patience_steps, parent, enters))
        self._mirror.update(self.history.candidates[candidate])

    def _as_draw(self, config: Any) -> sampler.Draw | None:
        """How the space would have drawn a preset, or None if it cannot: the sampler then learns nothing from it."""
        if self._space is None:
            return None
        draw = sampler.inside(self.plan.sampler, self._space, config.model_dump())
        return draw if draw and self._resolve(draw.config, self._space.base) == config else None

    def _resolve(self, draw: Mapping[str, Any], preset: str) -> Any:
        try:
            return build_config(self._family, draw, self.plan.fixed, preset=preset)
        except ValidationError as error:
            raise PlanError(explain(error, f"a draw from space {self.plan.space!r}")) from error
