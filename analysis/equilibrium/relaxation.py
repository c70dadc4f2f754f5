"""Does the free phase come to rest within its steps, and which solver would get there first?

What it is: the residual of the free phase after each step, by the model's own solver and by others: half and twice its
step, and Anderson acceleration; and the steps that each takes to a tolerance.
What it is not: time. A step of Anderson acceleration costs a little more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.diagnose.api import Finding, Plot, Series, Value, Verdict, answer, diagnostic
from analysis.equilibrium.looked import problem_of
from trainables.equilibrium.config import EquilibriumConfig
from trainables.equilibrium.relaxation import relax

TOLERANCE = 1e-3
"""Residual in units of force that steps are counted to."""
_SETTLED, _LOST = 5e-3, 0.05
"""Residual of a step up to which the phase has settled, and from which it is lost, as live health has it (H30, H31)."""
_LONGER = 4
_OWN = "own"


@diagnostic("residual of the free phase, by solver")
def relaxation(subject: Any) -> Finding:
    """Return a finding with values ``step_residual`` at the end of the free phase, ``steps_<solver>`` to a residual of
    0.001 in units of force (NaN if it is not reached in four times as many steps), ``rate`` a step at the end.
    """
    problem, config = problem_of(subject), subject.config
    traces = {
        name: relax(problem.field, _LONGER * config.t1, eps, anderson=depth).residuals.tolist()
        for name, (eps, depth) in solvers(config).items()
    }
    return judge(traces, config.t1, min(config.eps, problem.field.largest_step))


def solvers(config: EquilibriumConfig) -> dict[str, tuple[float, int]]:
    """Step and depth of the mixture by name, the model's own first; none whose steps cannot converge."""
    eps, tried = config.eps, {_OWN: (config.eps, config.anderson)}
    others = {"half_eps": (eps / 2, 0), "plain": (eps, 0), "twice_eps": (2 * eps, 0), "anderson_5": (eps, 5)}
    own = tried[_OWN]
    return tried | {name: how for name, how in others.items() if how != own and how[0] < 2.0 / config.kappa}


def judge(traces: Mapping[str, Sequence[float]], t1: int, eps: float) -> Finding:
    """The finding on residuals at the start and after each step, by solver, the model's own by the name ``own``."""
    own = traces[_OWN]
    at_end = eps * own[t1]
    steps = {name: steps_to(trace, TOLERANCE) for name, trace in traces.items()}
    values: dict[str, Value] = {"step_residual": at_end, "rate": rate(own, t1)}
    values |= {f"steps_{name}": count for name, count in steps.items()}
    verdict: Verdict = "fail" if not at_end <= _LOST else "warn" if at_end > _SETTLED else "pass"
    words = {"pass": "it has come to rest", "warn": "it has not quite come to rest", "fail": "it does not come to rest"}
    said = f"After {t1} steps the free phase moves by {at_end:.1g} of the state a step: {words[verdict]}."
    summary = f"{said} {_compared(steps, t1)}"
    series = tuple(Series(name, tuple(range(len(trace))), tuple(trace)) for name, trace in traces.items())
    plot = Plot(
        "Residual of the free phase", "steps", "|F| / |z|", series=series, lines={"tolerance": TOLERANCE}, log_y=True
    )
    return answer(verdict, summary, values, {"step_residual": _SETTLED}, (plot,))


def _compared(steps: Mapping[str, float], t1: int) -> str:
    """Who gets to the tolerance first."""
    reached = {name: count for name, count in steps.items() if math.isfinite(count)}
    if not reached:
        return f"No solver gets to a residual of {TOLERANCE:g} in {_LONGER * t1} steps."
    first = min(reached, key=lambda name: reached[name])
    mine = f"{steps[_OWN]:.0f} steps" if _OWN in reached else f"more than {_LONGER * t1} steps"
    own = f"The own solver takes {mine} to a residual of {TOLERANCE:g}"
    return f"{own}, the fewest of all." if first == _OWN else f"{own}, the quickest, {first}, {reached[first]:.0f}."


def steps_to(trace: Sequence[float], tolerance: float) -> float:
    """The first step after which the residual stays below; NaN if it is above at the end."""
    above = [step for step, residual in enumerate(trace) if not residual <= tolerance]
    last = above[-1] if above else -1
    return math.nan if last == len(trace) - 1 else float(last + 1)


def rate(trace: Sequence[float], end: int) -> float:
    """Factor of the residual a step over the second half of the steps up to ``end``."""
    half = end // 2
    if end == half or not trace[half] > 0.0 or not trace[end] > 0.0:
        return math.nan
    return float((trace[end] / trace[half]) ** (1.0 / (end - half)))
