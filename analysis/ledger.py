"""What a run cost, what its gates saved, and what quality that bought when: from its records, standard library only.

Slot seconds are those that a job's slot trained or evaluated, work that was lost and done again included; waiting and
starting up are not in them. What was saved is an estimate against running every candidate to the end with all seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from analysis.record_types import MemberRecord, Report
from analysis.records import Records

_HOUR_S = 3600.0


@dataclass(frozen=True)
class StageSpent:
    """Steps and slot seconds of the members on their way to the end of one stage (readings of test left out)."""

    until_step: int
    steps: int
    slot_seconds: float


@dataclass(frozen=True)
class Ledger:
    """The bill.

    Attributes:
        steps: optimiser steps; repeated ones count once.
        slot_seconds: see the module.
        gpu_hours: slot hours x GPUs of a job.
        price_per_hour: of a GPU, or where a job has none of a slot; None where no price is given.
        money: in the price's currency; None without a price.
        stages: the same by stage.
        ungated_steps, ungated_slot_seconds, ungated_gpu_hours, ungated_money: estimated for everybody so far run to
            the end with all seeds, each at its own speed.
    """

    steps: int
    slot_seconds: float
    gpu_hours: float
    price_per_hour: float | None
    money: float | None
    stages: tuple[StageSpent, ...]
    ungated_steps: int
    ungated_slot_seconds: float
    ungated_gpu_hours: float
    ungated_money: float | None

    @property
    def saved_share(self) -> float:
        """Share of the ungated slot seconds that was not spent; NaN before anything ran."""
        return 1.0 - self.slot_seconds / self.ungated_slot_seconds if self.ungated_slot_seconds else math.nan


@dataclass(frozen=True)
class QualityPoint:
    """A new best value of any member on val, and what the run had cost by then."""

    value: float
    member: str
    step: int
    total_steps: int
    total_s: float


@dataclass(frozen=True)
class Reached:
    """When a member first was as good as the target: its own step and seconds, and what the run had cost by then."""

    member: str
    step: int
    member_s: float
    total_steps: int
    total_s: float


def ledger(records: Records, price_per_hour: float | None = None) -> Ledger:
    """The bill of a run so far.

    Args:
        records: of the run.
        price_per_hour: in place of the plan's ``resources.price_per_hour``, if it has one.
    """
    resources = records.plan.get("resources", {})
    gpus = float(resources.get("gpu", 0.0))
    price = resources.get("price_per_hour") if price_per_hour is None else price_per_hour
    last = records.stages[-1]
    seeds, until = last["num_seeds"], last["until_step"]
    mean_rate = records.slot_seconds / records.steps if records.steps else 0.0
    seconds = 0.0
    for candidate in records.candidates.values():
        members = candidate.members.values()
        steps, spent = sum(m.steps for m in members), sum(m.seconds for m in members)
        seconds += seeds * until * (spent / steps if steps else mean_rate)

    def hours(slot_seconds: float) -> float:
        return slot_seconds / _HOUR_S * gpus

    def money(slot_seconds: float) -> float | None:
        return None if price is None else price * (hours(slot_seconds) if gpus else slot_seconds / _HOUR_S)

    return Ledger(
        steps=records.steps,
        slot_seconds=records.slot_seconds,
        gpu_hours=hours(records.slot_seconds),
        price_per_hour=price,
        money=money(records.slot_seconds),
        stages=tuple(_by_stage(records)),
        ungated_steps=len(records.candidates) * seeds * until,
        ungated_slot_seconds=seconds,
        ungated_gpu_hours=hours(seconds),
        ungated_money=money(seconds),
    )


def quality_against_cost(records: Records) -> list[QualityPoint]:
    """Every improvement of the best val value so far, in order: one member's, so the luckiest seed's."""
    points: list[QualityPoint] = []
    for member, report in _in_order(records):
        if math.isnan(report.value):
            continue
        if not points or records.sign * (report.value - points[-1].value) < 0.0:
            points.append(QualityPoint(report.value, member.id, report.step, report.total_steps, report.total_s))
    return points


def to_target(records: Records, target: float) -> list[Reached]:
    """Who was ever as good as ``target`` on val, in the order in which they got there; empty if nobody was."""
    reached: dict[str, Reached] = {}
    for member, report in _in_order(records):
        if member.id not in reached and records.sign * (report.value - target) <= 0.0:
            reached[member.id] = Reached(member.id, report.step, report.member_s, report.total_steps, report.total_s)
    return list(reached.values())


def control_target(records: Records) -> float | None:
    """The mean over seeds of the control's best values: a natural target; None while it has none."""
    control = records.control
    if control is None:
        return None
    best = [records.best(m) for m in control.members.values() if m.lost_stage is None]
    values = [report.value for report in best if report is not None]
    return math.fsum(values) / len(values) if values else None


def _by_stage(records: Records) -> Iterator[StageSpent]:
    steps = [0] * len(records.stages)
    seconds = [0.0] * len(records.stages)
    for member in records.members.values():
        before, spent = 0, 0.0
        for report in member.reports:
            steps[report.stage] += report.step - before
            seconds[report.stage] += report.member_s - spent
            before, spent = report.step, report.member_s
    for stage, num, took in zip(records.stages, steps, seconds, strict=True):
        yield StageSpent(stage["until_step"], num, took)


def _in_order(records: Records) -> list[tuple[MemberRecord, Report]]:
    """Reports in the order in which they were heard."""
    reports = [(member, report) for member in records.members.values() for report in member.reports]
    return sorted(reports, key=lambda row: row[1].total_steps)
