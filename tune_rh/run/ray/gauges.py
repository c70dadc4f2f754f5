"""A session on Ray's metrics endpoint: gauges that the driver alone sets, from the journal's own figures.

Ray drops them once the driver has left the cluster.
"""

from __future__ import annotations

import math
from collections import Counter

from ray.util.metrics import Gauge

from trainables.worker.heartbeat import last_beat
from tune_rh.record.events import Evaluated, Event, JobEnded, JobStarted, MemberId, Promoted
from tune_rh.record.journal import RunPaths
from tune_rh.run.session import Session
from tune_rh.watch.metrics import EXTRA_TAGS, OF_MEMBER, OF_RUN, TAGS


class Gauges:
    """A watcher of a session."""

    def __init__(self, session: Session, paths: RunPaths) -> None:
        self._session, self._paths = session, paths
        history = session.history
        tags = {"run": history.plan.name, "session": str(history.session), "family": history.plan.family}
        self._gauges = {
            name: Gauge(f"tune_rh_{name}", description, tag_keys=EXTRA_TAGS.get(name, TAGS))
            for name, description in {**OF_RUN, **OF_MEMBER}.items()
        }
        for gauge in self._gauges.values():
            gauge.set_default_tags(tags)
        members = [member for candidate in history.candidates.values() for member in candidate.members.values()]
        self._parked = {member.id for member in members if member.status == "idle" and member.step}
        self._promoted = Counter(one.gate for one in history.decisions if one.kind == "promoted")
        self._show_run()

    def __call__(self, event: Event) -> None:
        """Show what an event has changed."""
        if isinstance(event, JobStarted):
            self._parked.discard(event.member)
        elif isinstance(event, JobEnded):
            if event.outcome == "parked":
                self._parked.add(event.member)
            self._set("member_steps_per_s", 0.0, event.member)
        elif isinstance(event, Promoted):
            self._promoted[event.gate] += 1
        elif isinstance(event, Evaluated):
            self._show_member(event)
        self._show_run()

    def _show_run(self) -> None:
        history = self._session.history
        self._set("steps", history.steps_spent)
        self._set("slots", history.slots)
        self._set("running", len(history.running))
        self._set("waiting", len(history.pending))
        self._set("parked", len(self._parked))
        self._set("retries", len(history.losses.all))
        self._set("lost_nodes", len(history.losses.gone))
        for stage, number in self._promoted.items():
            self._gauges["promoted"].set(number, {"stage": str(stage + 1)})

    def _show_member(self, event: Evaluated) -> None:
        plan, member = self._session.plan, self._session.history.member(event.member)
        self._set("member_step", event.step, event.member)
        self._set("member_stage", member.stage + 1, event.member)
        value = event.metrics.get(plan.objective, math.nan)
        if math.isfinite(value):
            self._set("member_objective", value, event.member)
        self._set("member_steps_per_s", plan.eval_every / max(event.train_s, 1e-9), event.member)
        beat = last_beat(self._paths.member(event.member)) if plan.resources.gpu else None
        if beat is not None and beat.mem_reserved_mib is not None:
            self._set("member_gpu_mib", beat.mem_reserved_mib, event.member)

    def _set(self, name: str, value: float, member: MemberId | None = None) -> None:
        self._gauges[name].set(value, {} if member is None else {"member": str(member)})
