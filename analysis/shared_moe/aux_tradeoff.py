"""Does more balance between experts cost loss?

What it is: the candidates of a run that share every field but those of balance, at the furthest step that all of them
have reached on the seeds that all of them have. Their effective coefficient (the mean of the auxiliary loss's
coefficient over the steps until then; 0 without an auxiliary loss) stands against loss and balance. Judged is the cost:
in each seed a straight line of the best loss so far over the coefficients, from the weakest to the strongest, with
Student's t over seeds. A line, because the auxiliary loss enters in proportion to its coefficient; a valley between the
ends shows in the plot and in the differences to the control, not in the cost. Where a stronger coefficient did not
visibly raise the balance, there is no pass: then nothing was shown to cost nothing.

The rank correlation has a percentile interval by a bootstrap over seeds, which is only reported: such an interval of a
mean covers 0.75 instead of 0.95 with 3 normal seeds and 0.84 with 5 (20,000 simulated samples; Colas et al. 2018, arXiv
1806.08295, warn of it).

What it is not: a claim, or a reading of candidates that differ in more than balance. Loss-free balancing (a bias on the
choice) has no coefficient; it stands beside the others in the plot of loss against balance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, Verdict, answer, diagnostic
from analysis.diagnose.verdicts import shown
from analysis.language.finishers import (
    LOSS,
    ONE_LOOK,
    control_of,
    curves,
    doubted,
    lost_text,
    matched,
    name,
    settings,
    value_of,
)
from analysis.search.best_so_far import BestSoFar
from analysis.search.gate_regret import rank_correlation
from analysis.stats.bootstrap import interval
from analysis.stats.interval import Interval, mean_interval
from analysis.view import Candidate, Run

NEARLY_FREE = 0.01
"""Nats per token that the strongest coefficient may cost more than the weakest."""

_SCHEDULE = ("aux_loss_coef_start", "aux_loss_coef_end", "aux_warmup_frac", "aux_decay_end_frac")
_BALANCE_FIELDS = {"balance", "bias_update_rate", *_SCHEDULE}  # what the compared may differ in
_PER = 0.01  # unit of the coefficient that slopes are given for
_BALANCES = ("balance_entropy", "max_vio")
_FEW_SEEDS = 3  # fewer are said to be few


@dataclass(frozen=True)
class _Point:
    """One candidate at the common step.

    Attributes:
        coefficient: effective, NaN for loss-free balancing.
        losses: by seed, the best so far.
        balances: by metric and seed, of the last report until then; seeds that did not report it are missing.
    """

    candidate: Candidate
    coefficient: float
    losses: dict[int, float]
    balances: dict[str, dict[int, float]]

    @property
    def loss(self) -> Interval:
        return mean_interval(list(self.losses.values()))

    def balance(self, metric: str) -> Interval:
        return mean_interval(list(self.balances[metric].values()))


@diagnostic("Balance against loss", needs="records")
def aux_tradeoff(run: Run) -> Finding:
    """Return a finding with values: ``cost``, fitted loss at the strongest coefficient less that at the weakest (nats
    per token, judged); ``cost_per_0.01``, the same for each 0.01 of coefficient; ``change_of_balance_entropy`` and
    ``change_of_max_vio``, fitted alike; ``rank_correlation`` of coefficient and mean loss; ``num_seeds``, ``at_step``.
    A candidate each: ``coefficient``, ``loss``, ``balance_entropy``, ``max_vio`` and, where the control is among them,
    ``minus_control`` (paired by seed).
    """
    control = control_of(run)
    group = _group(run)
    with_coefficient = [c for c in group if _schedule(c) is not None]
    if len({_schedule(c) for c in with_coefficient}) < 2:
        raise NoEvidence(
            "No two candidates that reached a gate with a finite loss share everything but the coefficient of the "
            "auxiliary loss.",
        )
    step, seeds = matched([_curves(c) for c in with_coefficient])
    points = [_point(c, step, seeds) for c in with_coefficient]
    xs = [point.coefficient for point in points]
    if not seeds or max(xs) == min(xs):
        raise NoEvidence("The candidates that differ only in balance have no seed in common.")
    free = [p for c in group if c not in with_coefficient if (p := _point(c, step, seeds)).losses]
    return _judge(points, free, control, step, seeds)


def _judge(points: list[_Point], free: list[_Point], control: Candidate, step: float, seeds: list[int]) -> Finding:
    xs = [point.coefficient for point in points]
    width = max(xs) - min(xs)
    cost = _change(points, [point.losses for point in points], seeds)
    values: dict[str, Value] = {
        "cost": cost,
        "cost_per_0.01": cost.times(_PER / width),
        "rank_correlation": _rank_correlation(points, seeds),
        "num_seeds": float(len(seeds)),
        "at_step": step,
    }
    for metric in _BALANCES:
        if all(len(point.balances[metric]) == len(seeds) for point in points):
            values[f"change_of_{metric}"] = _change(points, [point.balances[metric] for point in points], seeds)
    verdict = doubted(cost, lambda value: value <= NEARLY_FREE)
    entropy = values.get("change_of_balance_entropy")
    balanced = not isinstance(entropy, Interval) or entropy.low > 0.0
    if verdict == "pass" and not balanced:
        verdict = "warn"  # that nothing costs nothing says nothing
    reference = next((point for point in (*points, *free) if point.candidate is control), None)
    for point in (*points, *free):
        values |= dict(_values(point, reference))
    summary = (
        f"{len(points)} candidates differ in nothing but balance, with mean coefficients from {min(xs):.3g} to "
        f"{max(xs):.3g} over {step:,.0f} steps. {_meaning(verdict, cost, len(seeds), balanced)} "
        f"{_lowest(points)}{_bought(values)}"
        f"{lost_text(point.candidate for point in (*points, *free))}{ONE_LOOK}."
    )
    return answer(verdict, summary, values, {"cost": NEARLY_FREE}, _plots(points, free))


def effective_coefficient(config: Any, steps: int) -> float:
    """Mean over the first ``steps`` optimiser steps of the auxiliary loss's coefficient: 0 without that loss.

    In closed form, equal to the mean of `trainables.shared_moe.routing.aux_coefficient`: held at its start, then in a
    straight line to its end, both ends counted in the pinned ``schedule_steps``.
    """
    if config.balance != "aux" or steps < 1:
        return 0.0
    start, end = config.aux_loss_coef_start, config.aux_loss_coef_end
    held, done = (round(part * config.schedule_steps) for part in (config.aux_warmup_frac, config.aux_decay_end_frac))
    before = min(steps, held)
    falling = max(0, min(steps, done) - held)
    after = steps - before - falling
    slope = (end - start) / (done - held) if done > held else 0.0
    total = before * start + falling * start + slope * falling * (falling - 1) / 2 + after * end
    return float(total / steps)


def _group(run: Run) -> list[Candidate]:
    """The most candidates of a gate with one config but for balance; with the control, where there are as many."""
    groups: dict[str, list[Candidate]] = {}
    for one in run.last_standings():
        candidate = run.candidates[one]
        config = settings(candidate, "shared_moe")
        if config is None or config.ffn != "moe" or not curves(candidate, "steps"):
            continue
        rest = config.model_dump(mode="json", exclude=_BALANCE_FIELDS)
        groups.setdefault(json.dumps(rest, sort_keys=True), []).append(candidate)
    return max(
        groups.values(),
        key=lambda some: (len({_schedule(c) for c in some} - {None}), run.control in some),
        default=[],
    )


def _schedule(candidate: Candidate) -> tuple[float, ...] | None:
    """What the coefficient does, the same for candidates in which it does the same; None without one to speak of."""
    config = settings(candidate, "shared_moe")
    assert config is not None
    if config.balance == "none":
        return (0.0,)
    return tuple(getattr(config, field) for field in _SCHEDULE) if config.balance == "aux" else None


def _point(candidate: Candidate, step: float, seeds: Sequence[int]) -> _Point:
    config, mine = settings(candidate, "shared_moe"), _curves(candidate)
    assert config is not None
    losses = {seed: value for seed in seeds if seed in mine and not math.isnan(value := mine[seed].between(step))}
    balances: dict[str, dict[int, float]] = {metric: {} for metric in _BALANCES}
    for seed in losses:
        for metric in _BALANCES:
            values = (r.metrics.get(metric, math.nan) for r in candidate.members[seed].reports if r.step <= step)
            if reported := [float(value) for value in values if math.isfinite(value)]:
                balances[metric][seed] = reported[-1]
    coefficient = math.nan if config.balance == "lossfree" else effective_coefficient(config, round(step))
    return _Point(candidate, coefficient, losses, balances)


def _curves(candidate: Candidate) -> dict[int, BestSoFar]:
    """As far as each member was trained: what stopped early may have collapsed, and its last value is no later one."""
    return {seed: replace(curve, keeps=False) for seed, curve in curves(candidate, "steps").items()}


def _change(points: list[_Point], values: list[dict[int, float]], seeds: list[int]) -> Interval:
    """From the weakest to the strongest coefficient, along each seed's least-squares line."""
    x = np.array([point.coefficient for point in points])
    away = x - x.mean()
    slopes = [float(away @ [mine[seed] for mine in values] / (away @ away)) for seed in seeds]
    return mean_interval([slope * float(np.ptp(x)) for slope in slopes])


def _rank_correlation(points: list[_Point], seeds: list[int]) -> Interval:
    coefficients = [point.coefficient for point in points]
    losses = np.array([[point.losses[seed] for point in points] for seed in seeds])
    return interval(lambda rows: float(rank_correlation([coefficients, rows.mean(axis=0)])), losses, block=1)


def _values(point: _Point, control: _Point | None) -> Iterator[tuple[str, Value]]:
    named = {"loss": point.loss, **{metric: point.balance(metric) for metric, mine in point.balances.items() if mine}}
    if control is not None and point is not control:
        common = sorted(point.losses.keys() & control.losses.keys())
        named["minus_control"] = mean_interval([point.losses[seed] - control.losses[seed] for seed in common])
    if not math.isnan(point.coefficient):
        yield value_of(point.candidate, "coefficient"), point.coefficient
    for quantity, estimate in named.items():
        yield value_of(point.candidate, quantity), estimate


def _meaning(verdict: Verdict, cost: Interval, num_seeds: int, balanced: bool) -> str:
    """What the verdict means; ``balanced``: whether a stronger coefficient visibly raised the balance."""
    seeds = f"{num_seeds} seeds" if num_seeds > 1 else "one seed"
    size = f"from the weakest to the strongest the loss changes by {shown(cost)} nats per token in {seeds}"
    what = "More balance" if balanced else "A stronger coefficient, without visibly more balance,"
    if verdict == "fail":
        return f"{what} costs loss: {size}."
    if verdict == "pass":
        word = "is even rewarded" if cost.high < 0.0 else f"costs at most {NEARLY_FREE:g} nats"
        return f"{what} {word}: {size}."
    if cost.low > 0.0 and cost.high > NEARLY_FREE:
        return f"{what} costs loss, though perhaps less than {NEARLY_FREE:g} nats: {size}."
    why = ", and seeds are few" if num_seeds < _FEW_SEEDS else ""
    if cost.high <= NEARLY_FREE:
        why = ", and a stronger coefficient did not visibly raise the balance"
    return f"Whether more balance costs loss cannot be told: {size}{why}."


def _lowest(points: list[_Point]) -> str:
    """Where the mean is lowest, as a sentence with a space behind: a valley between the ends has no cost."""
    best = min(points, key=lambda point: point.loss.value)
    return f"In the mean the loss is lowest at {best.coefficient:.3g}, with {name(best.candidate)}. "


def _bought(values: dict[str, Value]) -> str:
    """What the coefficient did to the balance, as a sentence with a space behind."""
    entropy = values.get("change_of_balance_entropy")
    if not isinstance(entropy, Interval):
        return "What it does to the balance was not reported. "
    text = f"What that bought: balance_entropy changes by {shown(entropy)}"
    vio = values.get("change_of_max_vio")
    return text + (f", max_vio by {shown(vio, 2)}. " if isinstance(vio, Interval) else ". ")


def _plots(points: list[_Point], free: list[_Point]) -> tuple[Plot, ...]:
    losses = f"{LOSS} (nats per token)"
    plots = [_against_coefficient(points, "Best loss so far", losses, [point.loss for point in points])]
    for metric in _BALANCES:
        if any(point.balances[metric] for point in points):
            balances = [point.balance(metric) for point in points]
            plots.append(_against_coefficient(points, metric, metric, balances))
    series = []
    for label, group in (("auxiliary loss, or none", points), ("loss-free balancing", free)):
        known = [point for point in group if point.balances["balance_entropy"]]
        at = [point.balance("balance_entropy").value for point in known]
        series += [Series.of(label, [point.loss for point in known], at)] if known else []
    if series:
        plots.append(Plot("Loss against balance", "balance_entropy", losses, "points", tuple(series)))
    return tuple(plots)


def _against_coefficient(points: list[_Point], what: str, y_label: str, estimates: list[Interval]) -> Plot:
    named = zip(points, estimates, strict=True)
    series = tuple(Series.of(name(point.candidate), [y], [point.coefficient]) for point, y in named)
    title = f"{what} against the coefficient of the auxiliary loss"
    return Plot(title, "mean coefficient so far", y_label, "points", series)
