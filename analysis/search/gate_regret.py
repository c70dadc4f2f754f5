"""Whether the gates stopped a candidate that would have won, by the rank correlations between gates.

An estimate from those that went on, and what an audit saw of those that did not. Scores at consecutive gates are taken
as a chain of bivariate normal copulas (so that only ranks matter). For each correlation on a grid, runs with as many
candidates are simulated and cut as the real one was; how often they show the rank correlation that was seen is its
likelihood; before that, anything from none to perfect is as likely (a value that counts is the best so far, so that
being better at one gate does not make worse at the next). Those that went on were chosen by their score, which hides
part of the correlation, so two figures are given: as if they had been chosen at random (the cautious one), and
corrected, which simulates the choice as well.

Sources: C. Spearman, Am. J. Psychol. 15 (1904), 72-101; R. L. Thorndike, Personnel Selection (1949), chapter 6
(restriction of range); B. Efron, Ann. Statist. 7 (1979), 1-26 (bootstrap); D. B. Rubin, Ann. Statist. 12 (1984),
1151-1172 (simulated likelihoods).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from analysis.stats.interval import Interval, proportion_interval
from analysis.view import AUDIT, Entry, Run

_MIN_PAIRS = 4
"""Fewer candidates at two gates make no correlation."""
_MIN_RESAMPLED = 8
"""With fewer pairs a bootstrap often repeats the same ranks, and its interval says nothing."""
_RESAMPLES = 1000
_RUNS = 1000
_GRID = 50  # correlations, evenly spread over 0 to 1
_TOLERANCE = 0.05  # rank correlations that are as near as that count as the same
_DRAWS, _RUNS_A_DRAW = 200, 100


@dataclass(frozen=True)
class _GateRegret:
    """One gate against the next.

    Attributes:
        num_scored, num_passed: at this gate, audited ones left out of the second.
        num_pairs: candidates with a score at both, that went on by merit.
        spearman: between their scores, with a bootstrap over candidates (NaN bounds below eight); None below four.
        correlation: of the normal copula, had they been chosen at random: posterior mean and 95% interval.
        corrected: the same, chosen as they were.
        chance_cut: that the best at the next gate was cut at this one, by ``correlation``.
        chance_cut_corrected: the same by ``corrected``.
    """

    gate: int
    from_step: int
    to_step: int
    num_scored: int
    num_passed: int
    num_pairs: int
    note: str
    spearman: Interval | None = None
    correlation: Interval | None = None
    corrected: Interval | None = None
    chance_cut: Interval | None = None
    chance_cut_corrected: Interval | None = None


@dataclass(frozen=True)
class _Audit:
    """Stopped candidates that were run to the end all the same.

    Attributes:
        better: those of ``audited`` that beat all who had got there by merit, with their ``share`` (Wilson's interval).
        score, winner: of the best of the audited and of those by merit; NaN without.
    """

    audited: tuple[str, ...]
    better: tuple[str, ...]
    share: Interval
    score: float
    winner: float


@dataclass(frozen=True)
class Regret:
    """All gates but the last.

    Attributes:
        chance_cut: that the best at the end, had all been run there, was cut at any gate; by the uncorrected
            correlations. None where a gate has too few pairs.
        chance_cut_corrected: by the corrected ones.
        note: how far to trust it.
    """

    gates: tuple[_GateRegret, ...]
    chance_cut: Interval | None
    chance_cut_corrected: Interval | None
    audit: _Audit | None
    note: str


def gate_regret(run: Run, seed: int = 0) -> Regret:
    """Estimate for every gate, and for all together, whether the best was stopped; ``seed`` is of the simulation."""
    entries = [[e for e in es if e.rank is not None and math.isfinite(e.score)] for es in run.gates]
    by_merit, audited = [], set[str]()
    for arrived in entries:
        by_merit.append([e for e in arrived if e.candidate not in audited])
        audited |= {e.candidate for e in arrived if e.reason == AUDIT}
    gates: list[_GateRegret] = []
    cautious: list[_Link] = []
    corrected: list[_Link] = []
    for gate in range(len(entries) - 1):
        row, links = _gate(run, by_merit[gate], by_merit[gate + 1], gate, corrected, seed + gate)
        gates.append(row)
        if links is not None:
            cautious.append(links[0])
            corrected.append(links[1])
    complete = bool(gates) and len(corrected) == len(gates)
    return Regret(
        tuple(gates),
        _chance_in_all(cautious, seed) if complete else None,
        _chance_in_all(corrected, seed) if complete else None,
        _audit(run, entries),
        _note(gates, complete),
    )


@dataclass(frozen=True)
class _Link:
    """From one gate to the next: (scored, passed), and how likely each correlation of the grid is."""

    scored: int
    passed: int
    grid: Any
    weights: Any

    @property
    def mean(self) -> float:
        return float(self.grid @ self.weights)

    def interval(self, figures: Any) -> Interval:
        """Mean and 95% interval of a function of the correlation, given on the grid."""
        mean, order = float(figures @ self.weights), figures.argsort()
        reached = self.weights[order].cumsum()
        low, high = (float(figures[order][min(len(order) - 1, reached.searchsorted(q))]) for q in (0.025, 0.975))
        return Interval(mean, min(mean, low), max(mean, high))


def _gate(
    run: Run, here: list[Entry], later: list[Entry], gate: int, before: list[_Link], seed: int
) -> tuple[_GateRegret, tuple[_Link, _Link] | None]:
    steps = [stage["until_step"] for stage in run.stages[gate : gate + 2]]
    merit = {(e.candidate, e.seed) for e in here if e.promoted and e.reason != AUDIT}
    next_score = {(e.candidate, e.seed): run.sign * e.score for e in later}
    both = [e for e in here if (e.candidate, e.seed) in merit and (e.candidate, e.seed) in next_score]
    scores = [run.sign * e.score for e in both], [next_score[e.candidate, e.seed] for e in both]
    make = partial(
        _GateRegret,
        gate=gate,
        from_step=steps[0],
        to_step=steps[1],
        num_scored=len(here),
        num_passed=len(merit),
        num_pairs=len(both),
    )
    spearman = _spearman(*scores, seed)
    if spearman is None or len(before) < gate:
        few = f"{len(both)} have a score at both gates; it takes {_MIN_PAIRS}, with scores that differ"
        return make(note=few if spearman is None else "nothing is known about the gate before"), None
    (cautious, corrected), chances = _links(spearman.value, len(here), len(both), before, seed)
    row = make(
        spearman=spearman,
        correlation=cautious.interval(cautious.grid),
        corrected=corrected.interval(corrected.grid),
        chance_cut=cautious.interval(chances),
        chance_cut_corrected=corrected.interval(chances),
        note=f"from {len(both)} that went on" + (", hardly enough" if len(both) < _MIN_RESAMPLED else ""),
    )
    return row, (cautious, corrected)


def _spearman(x: Sequence[float], y: Sequence[float], seed: int) -> Interval | None:
    import numpy as np

    if len(x) < _MIN_PAIRS or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    pairs = np.array([x, y])
    if len(x) < _MIN_RESAMPLED:
        return Interval(float(rank_correlation(pairs)), math.nan, math.nan)
    drawn = np.random.default_rng(seed).integers(len(x), size=(_RESAMPLES, len(x)))
    low, high = np.nanquantile(rank_correlation(pairs[:, drawn]), [0.025, 0.975])
    return Interval(float(rank_correlation(pairs)), float(low), float(high))


def rank_correlation(pairs: Any) -> Any:
    """Spearman's along the last axis of two arrays; NaN where one of them is all ties."""
    import numpy as np
    from scipy.stats import rankdata

    ranks = rankdata(pairs, axis=-1)
    ranks -= ranks.mean(axis=-1, keepdims=True)
    norms = np.sqrt((ranks**2).sum(axis=-1).prod(axis=0))
    with np.errstate(invalid="ignore"):
        return np.clip((ranks[0] * ranks[1]).sum(axis=-1) / norms, -1.0, 1.0)


def _links(
    observed: float, scored: int, passed: int, before: Sequence[_Link], seed: int
) -> tuple[tuple[_Link, _Link], Any]:
    """Posteriors without and with the choice by score, and the chance of a cut winner at each correlation."""
    import numpy as np

    rng = np.random.default_rng(seed)
    grid = (np.arange(_GRID) + 0.5) / _GRID
    here = _arrivals(before, scored, rng)
    chosen = here.argsort(axis=1)[:, :passed]
    noise, apart = rng.standard_normal(here.shape), rng.standard_normal((2, len(here), passed))
    apart[0].sort(axis=1)
    chances = np.empty(_GRID)
    weights = np.empty((2, _GRID))
    for i, r in enumerate(grid):
        rest = math.sqrt(1.0 - r * r)
        later = r * here + rest * noise
        kept = np.take_along_axis(later, chosen, axis=1)
        chances[i] = (kept.min(axis=1) > later.min(axis=1)).mean()
        for row, values in zip(weights, (r * apart[0] + rest * apart[1], kept), strict=True):
            row[i] = _likelihood(values, observed)
    weights[weights.sum(axis=1) == 0.0] = 1.0
    weights /= weights.sum(axis=1, keepdims=True)
    return (_Link(scored, passed, grid, weights[0]), _Link(scored, passed, grid, weights[1])), chances


def _arrivals(before: Sequence[_Link], scored: int, rng: Any) -> Any:
    """Simulated scores (runs, scored) at a gate, of those that the gates before let through."""
    import numpy as np

    here = rng.standard_normal((_RUNS, before[0].scored if before else scored))
    for i, link in enumerate(before):
        passed = before[i + 1].scored if i + 1 < len(before) else scored
        here = np.sort(here, axis=1)[:, :passed]
        here = link.mean * here + math.sqrt(1.0 - link.mean**2) * rng.standard_normal(here.shape)
    return here


def _likelihood(later: Any, observed: float) -> float:
    """Share of runs whose rank correlation is as good as the observed; columns are in order of the earlier score."""
    import numpy as np

    num = later.shape[1]
    scale = num * (num * num - 1)
    places = later.argsort(axis=1).argsort(axis=1)
    rho = 1.0 - 6.0 * ((places - np.arange(num)) ** 2).sum(axis=1) / scale
    # Few ranks allow few values of rho: half the way to the next one counts as the same.
    return float((abs(rho - observed) <= max(_TOLERANCE, 6.06 / scale)).mean())


def _chance_in_all(links: Sequence[_Link], seed: int) -> Interval:
    """Chance that the candidate which would have been best at the end was cut at any gate."""
    import numpy as np

    rng = np.random.default_rng(seed)
    chances = np.empty(_DRAWS)
    drawn = [rng.choice(link.grid, size=_DRAWS, p=link.weights) for link in links]
    for i, correlations in enumerate(zip(*drawn, strict=True)):
        here = rng.standard_normal((_RUNS_A_DRAW, links[0].scored))
        alive = np.ones(here.shape, dtype=bool)
        for r, link in zip(correlations, links, strict=True):
            order = np.where(alive, here, np.inf).argsort(axis=1)[:, : link.passed]
            alive = np.zeros_like(alive)
            np.put_along_axis(alive, order, True, axis=1)
            here = r * here + math.sqrt(1.0 - r * r) * rng.standard_normal(here.shape)
        winner = here.argmin(axis=1)[:, None]
        chances[i] = 1.0 - np.take_along_axis(alive, winner, axis=1).mean()
    low, high = np.quantile(chances, [0.025, 0.975])
    return Interval(float(chances.mean()), float(low), float(high))


def _audit(run: Run, entries: list[list[Entry]]) -> _Audit | None:
    audited = tuple(c.id for c in run.candidates.values() if c.audited)
    if not audited:
        return None
    at_end = {e.candidate: run.sign * e.score for e in entries[-1]} if entries else {}
    ran = {name: at_end[name] for name in audited if name in at_end}
    winner = min((score for name, score in at_end.items() if name not in ran), default=math.nan)
    better = tuple(name for name, score in ran.items() if score < winner)
    best = min(ran.values(), default=math.nan)
    return _Audit(
        tuple(ran),
        better,
        proportion_interval(len(better), len(ran)),
        run.sign * best,
        run.sign * winner,
    )


def _note(gates: Sequence[_GateRegret], complete: bool) -> str:
    if not gates:
        return "One stage: there was no gate that could have stopped a candidate."
    if not complete:
        few = [f"{g.from_step:,}" for g in gates if g.correlation is None]
        where = f"gate{'s' if few[1:] else ''} at step{'s' if few[1:] else ''} {' and '.join(few)}"
        return (
            f"Too few candidates went on and were scored at the next gate as well ({where}) to say whether the best "
            "was stopped; an audit would show it."
        )
    return (
        "Estimated from those that went on, for scores as they are at the next gate, noise of seeds included; the "
        "corrected figure assumes that scores of the stopped would have moved like those of the others."
    )
