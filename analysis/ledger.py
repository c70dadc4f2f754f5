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
        ungated_steps, ungated_slot_seconds: estimated for everybody so far run to the end with all seeds, each at its
            own speed.
    """

    steps: int
    slot_seconds: float
    gpu_hours: float
    price_per_hour: float | None
    money: float | None
    stages: tuple[StageSpent, ...]
    ungated_steps: int
    ungated_slot_seconds: float


@dataclass(frozen=True)
class QualityPoint:
    """A new best value of any member on val, and what the run had cost by then."""

    value: float
    member: str
    step: int
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

    slot_hours = records.slot_seconds / _HOUR_S
    return Ledger(
        steps=records.steps,
        slot_seconds=records.slot_seconds,
        gpu_hours=slot_hours * gpus,
        price_per_hour=price,
        money=None if price is None else price * slot_hours * (gpus or 1.0),
        stages=tuple(_by_stage(records)),
        ungated_steps=len(records.candidates) * seeds * until,
        ungated_slot_seconds=seconds,
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
