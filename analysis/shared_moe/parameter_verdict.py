"""What do fewer parameters cost in loss at the same tokens?

All that were trained to the end beside the control at equal tokens, paired by seed, as a percentage of the control's
loss, and the parameters beside it, all of them and those that a token is multiplied by, as shares of the control's.
Judged is the best of those with clearly fewer parameters. A smaller model mostly computes less as well, and then the
gap is owed to both, which the finding says.

The grades of the relative loss, in percent: below 3 is excellent, from 3 and below 7 good, from 7 to 10 fair, above 10
weak.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, Verdict, answer, diagnostic
from analysis.diagnose.verdicts import shown
from analysis.language.finishers import (
    MILLION,
    Paired,
    closing,
    finished,
    name,
    paired,
    pairs_text,
    settings,
    value_of,
)
from analysis.stats.interval import Interval
from analysis.view import Candidate, Run
from trainables.shared_moe.accounting import count_params, matmul_params

_FEWER = 0.9  # of the control's parameters: a candidate with less is judged
_EXCELLENT, _GOOD, _FAIR = 3.0, 7.0, 10.0  # percent of the control's loss at which the next grade begins (fair ends)
_SAME_COMPUTE = 0.05  # matrix entries a token further from the control's: the gap is said to be owed to both


@dataclass(frozen=True)
class _Smaller:
    """A candidate beside the control at equal tokens, and its shares of the control's parameters and matrix entries."""

    candidate: Candidate
    losses: Paired
    params: float
    matmul: float

    @property
    def percent(self) -> Interval:
        """The loss above the control's, in percent of it."""
        return self.losses.percent


@diagnostic("What fewer parameters cost", needs="records")
def parameter_verdict(run: Run) -> Finding:
    """Return a finding with values for each candidate: ``percent_above_control``, its loss at equal tokens above the
    control's in percent of it; ``share_of_parameters`` and ``share_of_matmul_parameters``, of the control's;
    ``millions_of_parameters``.
    """
    there = finished(run)
    rows = list(_beside(there.others, there.control))
    if not rows:
        raise NoEvidence("No candidate but the control was trained to the end on a common seed.")
    smaller = sorted(
        (row for row in rows if row.params < _FEWER),
        key=lambda row: (math.isnan(row.percent.value), row.percent.value),
    )
    values = dict(_values(rows))
    if not smaller:
        least = min(rows, key=lambda row: row.params)
        why = (
            f"No candidate that was trained to the end has fewer than {_FEWER:g} of the control's parameters: "
            f"{name(least.candidate)} has {least.params:.2f} of them."
        )
        return answer("no_evidence", why, values, {}, _plots(rows))
    best = smaller[0]
    verdict, grade = _graded(best.percent)
    threshold = {value_of(row.candidate, "percent_above_control"): _GOOD for row in smaller}
    limits = {"excellent": _EXCELLENT, "good": _GOOD, "fair": _FAIR, "share_of_parameters": _FEWER}
    summary = f"{_sentence(best, there.control, grade)} {_rest(smaller)}{closing(there)}"
    return answer(verdict, summary, values, {**threshold, **limits}, _plots(rows))


def _beside(others: list[Candidate], control: Candidate) -> Iterator[_Smaller]:
    """Those whose config can be read and who have a seed in common with the control."""
    reference = settings(control, "shared_moe")
    for candidate in others:
        config, losses = settings(candidate, "shared_moe"), paired(candidate, control, "tokens")
        if reference is None or config is None or losses is None:
            continue
        shares = (count(config) / count(reference) for count in (count_params, matmul_params))
        yield _Smaller(candidate, losses, *shares)


def _graded(percent: Interval) -> tuple[Verdict, str]:
    """The verdict and the grade in words; every grade that the interval reaches, where it crosses a limit."""
    ends = [percent.value if math.isnan(end) else end for end in (percent.low, percent.high)]
    first, last = map(_grade, ends)
    if math.isnan(percent.value):
        return "no_evidence", "unknown, the losses are not finite"
    if math.isnan(percent.low):
        return "warn", f"{_grade(percent.value)}, by one seed, which decides nothing"
    if first != last:
        return "warn", f"{_grade(percent.value)}, with an interval from {first} to {last}"
    verdicts: dict[str, Verdict] = {"excellent": "pass", "good": "pass", "fair": "warn", "weak": "fail"}
    return verdicts[first], first


def _grade(percent: float) -> str:
    if percent < _EXCELLENT:
        return "excellent"
    if percent < _GOOD:
        return "good"
    return "fair" if percent <= _FAIR else "weak"


def _values(rows: list[_Smaller]) -> Iterator[tuple[str, Value]]:
    for row in rows:
        yield value_of(row.candidate, "percent_above_control"), row.percent
        yield value_of(row.candidate, "share_of_parameters"), row.params
        yield value_of(row.candidate, "share_of_matmul_parameters"), row.matmul
        yield (
            value_of(row.candidate, "millions_of_parameters"),
            count_params(settings(row.candidate, "shared_moe")) / MILLION,
        )


def _sentence(best: _Smaller, control: Candidate, grade: str) -> str:
    word = "below" if best.percent.value < 0.0 else "above"
    text = (
        f"With {best.params:.2f} of the parameters of {name(control)}, the control, {name(best.candidate)} ends "
        f"{shown(best.percent.size, 1)} percent {word} its loss at the same tokens "
        f"({pairs_text(len(best.losses.ours))}): {grade}."
    )
    if abs(best.matmul - 1.0) > _SAME_COMPUTE:
        text += (
            f" But a token is multiplied by {best.matmul:.2f} of the control's matrix entries: the gap confounds size "
            "and compute."
        )
    return text


def _rest(smaller: list[_Smaller]) -> str:
    """The others with fewer parameters, as a sentence with a space behind."""
    others = [
        f"{name(row.candidate)} with {row.params:.2f} of the parameters {row.percent.value:+.1f} percent "
        f"({_grade(row.percent.value)})"
        for row in smaller[1:]
    ]
    rest = "the others" if others[1:] else "the other"
    return f"It is the best of {len(smaller)}; {rest}: {', '.join(others)}. " if others else ""


def _plots(rows: list[_Smaller]) -> tuple[Plot, ...]:
    series = [Series.of(name(row.candidate), [row.percent], [row.params]) for row in rows]
    plot = Plot(
        "Loss against the control's at equal tokens, and size",
        "share of the control's parameters",
        "loss above the control's (%)",
        "points",
        tuple(series),
        lines={"good ends": _GOOD, "fair ends": _FAIR, "the control": 0.0},
    )
    return (plot,)
