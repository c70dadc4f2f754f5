"""How does the NLL fall with the number of primes whose lines a model is given?

Every candidate of the run that reads lines, at its best evaluation, by class and by P; and for each P the best of
them. Nothing is fitted: candidates differ in more than P, and some were stopped early, so that the best of a P is a
bound from above.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.view import Candidate, Run

_FEWEST = 2  # different P


@diagnostic("R: NLL by number of primes", needs="records")
def nll_by_primes(run: Run) -> Finding:
    """Return a finding with values, in nats per spacing on the validation split: ``<class>_P<bound>``, of the best
    candidate of a class that reads the lines up to this bound.
    """
    best: dict[str, dict[int, float]] = {}
    for name, bound, value in _points(run):
        own = best.setdefault(name, {})
        own[bound] = min(value, own.get(bound, math.inf))
    curves = {name: own for name, own in sorted(best.items()) if len(own) >= _FEWEST}
    if not curves:
        raise NoEvidence(f"Fewer than {_FEWEST} bounds of primes were tried in any class.")
    name, own = min(curves.items(), key=lambda item: min(item[1].values()))
    low, best_bound = min(own), min(own, key=own.__getitem__)
    return answer(
        "pass",
        f"In {name} the best candidate with lines up to {low} has {own[low]:.3f} nats per spacing; of {len(own)} "
        f"bounds {best_bound} does best, with {own[best_bound]:.3f}.",
        {f"{name.replace(' ', '_')}_P{bound}": own[bound] for name, own in curves.items() for bound in sorted(own)},
        {},
        (_plot(curves),),
    )


def _points(run: Run) -> Iterator[tuple[str, int, float]]:
    """Class, bound and mean over seeds of the best values, of each candidate that reads lines and lost no seed."""
    for candidate in run.candidates.values():
        value = _value(candidate)
        if candidate.knowledge is not None and int(candidate.config.get("prime_lines", 0)) and math.isfinite(value):
            yield candidate.knowledge.name, int(candidate.config["prime_lines"]), value


def _value(candidate: Candidate) -> float:
    values = [member.best for member in candidate.members.values() if member.reports]
    return fmean(values) if values else math.nan


def _plot(curves: Any) -> Plot:
    series = [Series(name, tuple(sorted(own)), tuple(own[p] for p in sorted(own))) for name, own in curves.items()]
    return Plot(
        "NLL by the primes whose lines are read",
        "lines of all powers of primes up to P",
        "NLL of the best candidate (nats per spacing)",
        "line",
        tuple(series),
        log_x=True,
    )
