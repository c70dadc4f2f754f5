"""A history as plain data: the `analysis.view.Run` that reports, tables and diagnostics of whole runs are handed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from analysis.view import Candidate, Member, Run
from trainables.knowledge import knowledge_of
from trainables.spelling import meant
from tune_rh.record import members, ranking
from tune_rh.record.history import History
from tune_rh.record.rules import alarms


def view(history: History, root: Path, provenance: Mapping[str, Any] = MappingProxyType({})) -> Run:
    """The run in the folder ``root`` as its history has it now."""
    candidates = {candidate.id: _candidate(history, candidate) for candidate in history.candidates.values()}
    stages = range(len(history.plan.stages))
    return Run(
        root=root,
        kind=history.plan.kind,
        plan=history.plan.model_dump(mode="json"),
        provenance=provenance,
        candidates=candidates,
        members={member.id: member for one in candidates.values() for member in one.members.values()},
        decisions=tuple(history.decisions),
        gates=tuple(tuple(ranking.entries(history, stage)) for stage in stages),
        funnel=tuple(ranking.funnel(history)),
        standings=tuple(tuple(ranking.standings(history, stage)) for stage in stages),
        spent=ranking.spent(history),
        slots=history.slots,
        ended=history.ended,
        remarks=(
            *ranking.about_draws(history),
            *ranking.about_gates(history),
            *ranking.about_packages(history),
            *history.losses.summary(),
        ),
    )


def _candidate(history: History, candidate: members.Candidate) -> Candidate:
    added = candidate.added
    return Candidate(
        id=candidate.id,
        origin=added.origin,
        label=added.label,
        config=added.config,
        params=meant(added.params),
        distributions=added.distributions,
        parent=added.parent,
        stage=max((member.stage for member in candidate.members.values()), default=0),
        audited=candidate.audited,
        members={seed: _member(history, member) for seed, member in candidate.members.items()},
        knowledge=knowledge_of(history.plan.family, added.config),
    )


def _member(history: History, member: members.Member) -> Member:
    status: str = member.status
    if status == "idle":
        status = "parked" if member.step else "waiting"
    value = member.value
    return Member(
        id=str(member.id),
        candidate=member.id.candidate,
        seed=member.id.seed,
        status=status,
        reason=member.reason,
        stage=member.stage,
        lost_stage=member.lost_stage,
        reports=member.reports.as_they_are(),
        alarms=tuple(alarms(history.plan.rules, member.curve)),
        best=math.nan if value is None else history.shown(value),
        best_step=None if value is None else member.curve.best_step,
        tested=None if member.tested is None else member.tested.metrics,
        verdicts=None if member.diagnosed is None else member.diagnosed.verdicts,
        seconds=member.slot_seconds,
    )
