"""Does relaxation stay stable in training, and did anything say so before the loss did?

What it is: what evaluations and steps have recorded of each member: the residual of a step of the free phase, how long
the controller of the penalty was at its maximum, how far the loss rose above its best, and the largest real part of an
eigenvalue of the Jacobian, whose sign says in advance that the free state is about to lose its rest. For each candidate
the first step of each, and how much earlier the eigenvalue warned than the residual.
What it is not: the rules of live health, which stop members; those see every report, and this what became of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import fmean

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, Verdict, answer, diagnostic
from analysis.language.finishers import name, value_of
from analysis.view import Candidate, Member, Report, Run

_SETTLED, _LOST = 5e-3, 0.05
"""Residual of a step, as live health has it (H30, H31)."""
_PINNED = 200.0
"""Steps in a row of the controller at its maximum (H32)."""
_REBOUND = 0.1
"""Nats per token above the best so far."""
_MAX_SHOWN = 6
_STEPS = "optimiser steps"


@dataclass(frozen=True)
class Course:
    """What became of one member; steps are NaN where it never happened.

    Attributes:
        eigenvalue: first step with an eigenvalue in the right half plane.
        residual: first step with a residual that has not settled.
        lost: first step with one from which there is no return, or where the member diverged.
        pinned: first step at which the controller had been at its maximum for too long.
        rebound: most nats that a later loss was above the best so far.
    """

    eigenvalue: float
    residual: float
    lost: float
    pinned: float
    rebound: float

    @property
    def warning(self) -> float:
        """Steps by which the eigenvalue came before the residual; NaN where one of both did not come."""
        return self.residual - self.eigenvalue


@diagnostic("Stability of the forward pass in training", needs="records")
def forward_stability(run: Run) -> Finding:
    """Return a finding with values for each candidate: ``members_lost``, ``members_unsettled`` and ``members_pinned``,
    how many; ``rebound`` in nats per token, the most; ``first_eigenvalue``, ``first_residual`` and ``first_lost``, the
    earliest step of any member; ``warning``, mean steps by which the eigenvalue came before the residual.
    """
    candidates = [c for c in run.candidates.values() if any(m.reports for m in c.members.values())]
    if not any("eval_residual" in r.metrics for c in candidates for m in c.members.values() for r in m.reports):
        raise NoEvidence("No evaluation has recorded a residual.")
    values: dict[str, Value] = {}
    faults: dict[str, list[str]] = {"lost": [], "alarmed": []}
    warnings: list[float] = []
    for candidate in candidates:
        courses = [course(member) for member in candidate.members.values() if member.reports]
        values |= {value_of(candidate, quantity): value for quantity, value in _values(courses).items()}
        warnings += [one.warning for one in courses if math.isfinite(one.warning)]
        if any(math.isfinite(one.lost) for one in courses):
            faults["lost"].append(name(candidate))
        elif any(_alarmed(one) for one in courses):
            faults["alarmed"].append(name(candidate))
    verdict: Verdict = "fail" if faults["lost"] else "warn" if faults["alarmed"] else "pass"
    return answer(verdict, _summary(faults, warnings, len(candidates)), values, {}, _plots(candidates))


def course(member: Member) -> Course:
    """What the reports of a member say."""
    best, rebound = math.inf, 0.0
    for report in member.reports:
        if math.isfinite(report.value):
            best = min(best, report.value)
            rebound = max(rebound, report.value - best)
    return Course(
        eigenvalue=_first(member, lambda r: r.metrics.get("abscissa", math.nan) > 0.0),
        residual=_first(member, lambda r: _step_residual(r) > _SETTLED),
        lost=_first(member, lambda r: _step_residual(r) > _LOST or r.diverged),
        pinned=_first(member, lambda r: r.metrics.get("jr_pinned", math.nan) > _PINNED),
        rebound=rebound,
    )


def _step_residual(report: Report) -> float:
    return float(report.metrics.get("step_residual", math.nan))


def _first(member: Member, happened: Callable[[Report], bool]) -> float:
    return next((float(report.step) for report in member.reports if happened(report)), math.nan)


def _alarmed(one: Course) -> bool:
    came = (one.eigenvalue, one.residual, one.pinned)
    return any(map(math.isfinite, came)) or one.rebound > _REBOUND


def _values(courses: list[Course]) -> dict[str, Value]:
    def earliest(steps: Iterable[float]) -> float:
        return min((step for step in steps if math.isfinite(step)), default=math.nan)

    def number(steps: Iterable[float]) -> int:
        return sum(map(math.isfinite, steps))

    warned = [one.warning for one in courses if math.isfinite(one.warning)]
    return {
        "members_lost": number(one.lost for one in courses),
        "members_unsettled": number(one.residual for one in courses),
        "members_pinned": number(one.pinned for one in courses),
        "rebound": max(one.rebound for one in courses),
        "first_eigenvalue": earliest(one.eigenvalue for one in courses),
        "first_residual": earliest(one.residual for one in courses),
        "first_lost": earliest(one.lost for one in courses),
        "warning": fmean(warned) if warned else math.nan,
    }


def _summary(faults: dict[str, list[str]], warnings: list[float], number: int) -> str:
    parts = []
    if faults["lost"]:
        parts.append(f"relaxation was lost in members of {_few(faults['lost'])}")
    if faults["alarmed"]:
        parts.append(f"there were alarms in members of {_few(faults['alarmed'])}")
    if not parts:
        return f"In all {number} candidates relaxation came to rest from the first step to the last."
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}.{_warned(warnings)}"


def _warned(warnings: list[float]) -> str:
    """Which said it first; readings are some steps apart, so neither may have."""
    if not warnings:
        return ""
    mean = fmean(warnings)
    if not mean:
        return " An eigenvalue warned when the residual did, in the mean."
    return (
        f" An eigenvalue warned {abs(mean):,.0f} steps {'before' if mean > 0 else 'after'} the residual, in the mean."
    )


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return f"{', '.join(names[:_MAX_SHOWN])}{more}"


def _plots(candidates: list[Candidate]) -> tuple[Plot, ...]:
    shown = candidates[:_MAX_SHOWN]
    residuals = tuple(_curve(c, "step_residual") for c in shown)
    abscissae = tuple(_curve(c, "abscissa") for c in shown)
    bounds = {"settled": _SETTLED, "lost": _LOST}
    of_residual = Plot("Residual of a step in training", _STEPS, "eps |F| / |z|", series=residuals, lines=bounds)
    stable = {"stable below": 0.0}
    of_eigenvalue = Plot("Leading eigenvalue in training", _STEPS, "largest real part", series=abscissae, lines=stable)
    return replace(of_residual, log_y=True), of_eigenvalue


def _curve(candidate: Candidate, metric: str) -> Series:
    """Mean over seeds at each step, from the lowest to the highest."""
    at: dict[int, list[float]] = {}
    for member in candidate.members.values():
        for report in member.reports:
            value = report.metrics.get(metric, math.nan)
            if math.isfinite(value):
                at.setdefault(report.step, []).append(float(value))
    steps = sorted(at)
    sides = (fmean, min, max)
    return Series(name(candidate), tuple(steps), *(tuple(float(of(at[step])) for step in steps) for of in sides))
