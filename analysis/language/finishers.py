"""What diagnostics of whole runs of language models share: who finished, and curves compared at equal places.

The best loss so far of each member along one of three clocks (optimiser steps, tokens, seconds of training), and
differences between two candidates at a place that both have reached, paired by seed, with Student's t intervals. Batch
sizes may differ, and then reports stand at other tokens: between two reports a curve is a straight line. A member that
stopped early keeps its value, and a lost one leaves its pair; the findings say how many were lost.

Each interval has its coverage for one look, and those who are looked at were chosen for being good: no claims.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import Any, Literal

from pydantic import ValidationError

from analysis.diagnose.api import NoEvidence, Verdict
from analysis.diagnose.verdicts import verdict
from analysis.search.best_so_far import BestSoFar
from analysis.stats.interval import Interval, mean_interval
from analysis.view import Candidate, Member, Run
from trainables.registry import build_config, get_family

LOSS = "eval_loss"
"""The objective that thresholds in nats and in percent are meant for."""
MILLION = 1e6
ONE_LOOK = "Intervals are 95%, Student's t over seeds, for one look each"

Clock = Literal["steps", "tokens", "seconds"]


@dataclass(frozen=True)
class Paired:
    """Two candidates at one place on a clock, by the seeds that both have there."""

    place: float
    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def difference(self) -> Interval:
        """Ours less theirs: below zero, ours is better."""
        return mean_interval([a - b for a, b in zip(self.ours, self.theirs, strict=True)])

    @property
    def percent(self) -> Interval:
        """The same as a percentage of theirs, seed by seed; NaN where theirs is zero."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return mean_interval([100.0 * (a - b) / b if b else math.nan for a, b in pairs])


@dataclass(frozen=True)
class Finished:
    """Those of a run that can be compared at its end.

    Attributes:
        candidates: scored at the end, best first, the control among them where it is.
        scored: the same, and those that had lost every seed by then.
        control: whether it has come to the end or not.
        dense: the best dense one of ``candidates``; None if there is none.
    """

    candidates: tuple[Candidate, ...]
    scored: tuple[Candidate, ...]
    control: Candidate
    dense: Candidate | None
    family: str

    @property
    def best(self) -> Candidate | None:
        """The best that is not dense."""
        return next((c for c in self.candidates if _is_dense(c, self.family) is False), None)

    @property
    def others(self) -> list[Candidate]:
        """All but the control, best first."""
        return [c for c in self.candidates if c is not self.control]


def settings(candidate: Candidate, family: str) -> Any | None:
    """The config as the family reads it; None if this version of the family does not take it."""
    try:
        return build_config(get_family(family), written=[candidate.config])
    except ValidationError:
        return None


def _is_dense(candidate: Candidate, family: str) -> bool | None:
    """Whether its layers, or its attention, are dense; None if its config cannot be read."""
    config = settings(candidate, family)
    return None if config is None else "dense" in (getattr(config, "ffn", ""), getattr(config, "attn", ""))


def finished(run: Run) -> Finished:
    """The candidates that can be compared at the end of a run; raises `NoEvidence` where none can."""
    control = control_of(run)
    ended = tuple(run.candidates[entry.candidate] for entry in run.gates[-1])
    alive = tuple(c for c in ended if members(c))
    if not alive:
        raise NoEvidence("No candidate has reached the end of the last stage with a finite loss.")
    if not any(curves(candidate, "tokens") for candidate in alive):
        raise NoEvidence("No candidate that reached the end has reported on how many tokens it was trained.")
    family = run.plan["family"]
    return Finished(alive, ended, control, next((c for c in alive if _is_dense(c, family)), None), family)


def control_of(run: Run) -> Candidate:
    """The control of a run whose candidates can be compared; raises `NoEvidence` where they cannot."""
    if run.objective != LOSS:
        raise NoEvidence(f"The run is decided by {run.objective}, and this question is about {LOSS}.")
    if run.control is not None:
        return run.control
    if run.kind == "race":
        raise NoEvidence("There is no control to compare with: it is a race of seeds.")
    begun = "The control has not begun." if run.plan.get("control") else "There is no control to compare with."
    raise NoEvidence(begun)


def members(candidate: Candidate) -> dict[int, Member]:
    """Those that were not lost and have reported a finite loss, by seed."""
    return {
        seed: member
        for seed, member in candidate.members.items()
        if member.lost_stage is None and any(math.isfinite(report.value) for report in member.reports)
    }


def lost_text(candidates: Iterable[Candidate]) -> str:
    """Which seeds diverged or failed, and therefore have no pair, as a sentence with a space behind; may be empty."""
    counts = []
    for candidate in candidates:
        lost = sum(member.lost_stage is not None for member in candidate.members.values())
        counts += [f"{lost} of {len(candidate.members)} of {name(candidate)}"] if lost else []
    return f"Seeds that were lost are left out: {', '.join(counts)}. " if counts else ""


def closing(there: Finished) -> str:
    """What to keep in mind about comparisons at the end of a run."""
    by_id = {c.id: c for c in (there.control, *there.scored)}
    lost = lost_text(by_id[one] for one in sorted(by_id))
    return f"{lost}{ONE_LOOK}, and candidates were chosen for being good: no claim."


def curves(candidate: Candidate, clock: Clock) -> dict[int, BestSoFar]:
    """Of the members that were not lost, by seed; without those that never reported on this clock."""
    by_seed = {seed: _curve(member, clock) for seed, member in members(candidate).items()}
    return {seed: curve for seed, curve in by_seed.items() if curve.places}


def matched(sides: Sequence[Mapping[int, BestSoFar]]) -> tuple[float, list[int]]:
    """The furthest place that all have reached on the seeds that all have, and those seeds with a value there.

    NaN and no seed where they have none in common.
    """
    seeds = sorted(set.intersection(*(set(side) for side in sides))) if sides else []
    if not seeds:
        return math.nan, []
    place = furthest([side[seed] for side in sides for seed in seeds])
    return place, [seed for seed in seeds if not any(math.isnan(side[seed].between(place)) for side in sides)]


def furthest(some: Sequence[BestSoFar]) -> float:
    """The last place at which all curves, at least one, have a value; the last report of all if all keep theirs."""
    end = min(curve.end for curve in some)
    return max(curve.places[-1] for curve in some) if math.isinf(end) else end


def paired(one: Candidate, other: Candidate, clock: Clock) -> Paired | None:
    """``one`` beside ``other`` at the furthest place that both have reached; None without a common seed."""
    ours, theirs = curves(one, clock), curves(other, clock)
    place, seeds = matched((ours, theirs))
    if not seeds:
        return None
    return Paired(place, *(tuple(side[seed].between(place) for seed in seeds) for side in (ours, theirs)))


def reached(some: Sequence[BestSoFar], target: float) -> float:
    """The first place where the mean of the curves is at most ``target``; NaN if it never is, or without curves."""
    if not some:
        return math.nan
    first, last = max(curve.places[0] for curve in some), min(curve.end for curve in some)
    places = sorted({place for curve in some for place in curve.places if first <= place <= last})
    before: tuple[float, float] | None = None
    for place in places:
        value = fmean(curve.between(place) for curve in some)
        if value <= target:
            if before is None or value == target:
                return place
            left, high = before
            return left + (place - left) * (high - target) / (high - value)
        before = place, value
    return math.nan


def doubted(estimate: Interval, passes: Callable[[float], bool]) -> Verdict:
    """As `analysis.diagnose.verdicts.verdict`, and ``warn`` without an interval: one seed decides nothing."""
    if math.isfinite(estimate.value) and math.isnan(estimate.low):
        return "warn"
    return verdict(estimate, passes)


def name(candidate: Candidate) -> str:
    """``c0003 (half-notes)``; the id alone of a drawn candidate."""
    return f"{candidate.id} ({candidate.label})" if candidate.label else candidate.id


def value_of(candidate: Candidate, quantity: str) -> str:
    """The name of a value that belongs to one candidate: ``c0003.loss``; reports make a row of each candidate."""
    return f"{candidate.id}.{quantity}"


def pairs_text(num: int) -> str:
    """``3 seeds in pairs``."""
    return f"{num} seeds in pairs" if num > 1 else "one pair of seeds"


def is_wide(places: Sequence[float]) -> bool:
    """Whether positive numbers span so much that their axis should be logarithmic."""
    return bool(places) and min(places) > 0.0 and max(places) >= 10.0 * min(places)


def _curve(member: Member, clock: Clock) -> BestSoFar:
    reports = member.reports
    places: Iterable[float] = accumulate(report.train_s for report in reports)
    if clock != "seconds":
        places = (float(r.step) if clock == "steps" else float(r.metrics.get("tokens", math.nan)) for r in reports)
    values = (report.value for report in reports)
    return BestSoFar.of(zip(places, values, strict=True), sign=1.0, keeps=member.status == "stopped")
