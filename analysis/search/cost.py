"""What a run cost, what its gates saved, and what quality that bought when: from its run, standard library only.

Slot seconds are those that a job's slot trained or evaluated, work that was lost and done again included; waiting and
starting up are not in them. What was saved is an estimate against running every candidate to the end with all seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from analysis.view import Member, Report, Run, Spent

_HOUR_S = 3600.0


@dataclass(frozen=True)
class _StageSpent:
    """Steps and slot seconds of the members on their way to the end of one stage (readings of test left out)."""

    until_step: int
    steps: int
    slot_seconds: float


@dataclass(frozen=True)
class Ledger:
    """The bill.

    Attributes:
        spent: steps (repeated ones count once) and slot seconds, beside what they would have been without gates.
        gpu_hours: slot hours x GPUs of a job.
        price_per_hour: of a GPU, or where a job has none of a slot; None where no price is given.
    """

    spent: Spent
    gpu_hours: float
    price_per_hour: float | None
    money: float | None
    stages: tuple[_StageSpent, ...]


@dataclass(frozen=True)
class QualityPoint:
    """A new best value of any member on val, and what the run had cost by then."""

    value: float
    member: str
    step: int
    total_steps: int
    total_s: float


def ledger(run: Run, price_per_hour: float | None = None) -> Ledger:
    """The bill of a run so far, at ``price_per_hour`` in place of the plan's price, if it has one."""
    resources, spent = run.plan["resources"], run.spent
    gpus = float(resources["gpu"])
    price = resources["price_per_hour"] if price_per_hour is None else price_per_hour
    slot_hours = spent.slot_seconds / _HOUR_S
    return Ledger(
        spent=spent,
        gpu_hours=slot_hours * gpus,
        price_per_hour=price,
        money=None if price is None else price * slot_hours * (gpus or 1.0),
        stages=tuple(_by_stage(run)),
    )


def quality_against_cost(run: Run) -> list[QualityPoint]:
    """Every improvement of the best val value so far, in order: one member's, so the luckiest seed's."""
    points: list[QualityPoint] = []
    for member, report in _in_order(run):
        if math.isnan(report.value):
            continue
        if not points or run.sign * (report.value - points[-1].value) < 0.0:
            points.append(QualityPoint(report.value, member.id, report.step, report.total_steps, report.total_s))
    return points


def _by_stage(run: Run) -> Iterator[_StageSpent]:
    steps = [0] * len(run.stages)
    seconds = [0.0] * len(run.stages)
    for member in run.members.values():
        before, spent = 0, 0.0
        for report in member.reports:
            steps[report.stage] += report.step - before
            seconds[report.stage] += report.member_s - spent
            before, spent = report.step, report.member_s
    for stage, num, took in zip(run.stages, steps, seconds, strict=True):
        yield _StageSpent(stage["until_step"], num, took)


def _in_order(run: Run) -> list[tuple[Member, Report]]:
    """Reports in the order in which they were heard."""
    reports = [(member, report) for member in run.members.values() for report in member.reports]
    return sorted(reports, key=lambda row: row[1].total_steps)
