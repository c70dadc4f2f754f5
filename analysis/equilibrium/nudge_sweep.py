"""Would another nudge, or a longer nudged phase, give a better gradient?

What it is: the cosine of the model's own estimate with the exact gradient, all weights but the head's, for nudges of
several strengths and phases of several lengths. What is wrong shows in how it changes. A cosine below one that does not
depend on the nudge, and grows with the phase: the phase was over before the states had settled, and nobody looked. One
that grows as the nudge gets weaker: the nudge is too strong, or a correction is clipped, which binds strong nudges
first. One that grows with neither: the estimator is biased, and no setting of it repairs that.
What it is not: a choice of settings. It is one batch under these weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, answer, diagnostic
from analysis.equilibrium.looked import BODY, RIGHT, by_group, cosine, estimated, exact, problem_of
from trainables.equilibrium.config import EquilibriumConfig, least_radius

_NUDGES = (0.02, 0.05, 0.1, 0.2)
_AS_IT_IS = "as configured"
_SETTLED = 1e-3
"""Adjoint residual at which the adaptive phase ends."""
_FLAT = 0.02
"""Difference of cosines that is called none."""

Grid = Mapping[str, Mapping[float, float]]
"""Cosine by phase and by nudge."""


@diagnostic("direction of the gradient by nudge and by length of the nudged phase")
def nudge_sweep(subject: Any) -> Finding:
    """Return a finding with values: ``cosine`` as configured, the best ``cosine_at_weaker_nudges``,
    ``cosine_at_longer_phases`` and ``cosine_at_both``, and ``spread_over_nudges`` at the configured phase.
    """
    config = subject.config
    if config.estimator in ("bptt", "implicit"):
        raise NoEvidence(f"{config.estimator} takes no nudge.")
    problem = problem_of(subject)
    true = by_group(config, exact(problem).gradients)[BODY]
    field, own = ("holo_radius", config.holo_radius) if config.estimator == "holo" else ("beta", config.beta)
    grid = {
        phase: {
            nudge: cosine(by_group(config, estimated(problem, **fields, **{field: nudge}).gradients)[BODY], true)
            for nudge in nudges(config, own)
        }
        for phase, fields in phases(config).items()
    }
    return judge(config.estimator, grid, own)


def nudges(config: EquilibriumConfig, own: float) -> list[float]:
    """Strengths to try, the config's own among them; of ``holo`` none that float32 has no digits for."""
    least = least_radius(config.holo_points) if config.estimator == "holo" else 0.0
    return sorted({own, *(nudge for nudge in _NUDGES if nudge >= least)})


def phases(config: EquilibriumConfig) -> dict[str, dict[str, Any]]:
    """Lengths to try, as fields: half and four times as many steps, and as many until the estimate has settled."""
    t2 = config.t2
    return {
        f"{max(1, t2 // 2)} steps": {"t2": max(1, t2 // 2), "t2_tol": None},
        _AS_IT_IS: {},
        f"{4 * t2} steps": {"t2": 4 * t2, "t2_tol": None},
        "until settled": {"t2": 4 * t2, "t2_tol": _SETTLED, "select": True},
    }


def judge(estimator: str, grid: Grid, own: float) -> Finding:
    """The finding on cosines by phase, the third and fourth of which are longer than the second, and by nudge."""
    here, *longer = list(grid.values())[1:]
    weaker = _best(here[nudge] for nudge in here if nudge < own)
    found = {
        "cosine": here[own],
        "cosine_at_weaker_nudges": weaker,
        "cosine_at_longer_phases": _best(phase[own] for phase in longer),
        "cosine_at_both": _best(phase[nudge] for phase in longer for nudge in phase if nudge <= own),
        "spread_over_nudges": _spread([here[nudge] for nudge in here if nudge <= own]),
    }
    values: dict[str, Value] = dict(found)
    series = tuple(Series(phase, tuple(of), tuple(of.values())) for phase, of in grid.items())
    plot = Plot(
        f"Direction of the gradient of {estimator}",
        "nudge",
        "cosine with the exact gradient",
        series=series,
        lines={"right": RIGHT},
        log_x=True,
    )
    verdict = "pass" if found["cosine"] >= RIGHT else "fail"
    summary = f"The gradient of {estimator} has a cosine of {found['cosine']:.3f} with the exact one: {_reason(found)}."
    return answer(verdict, summary, values, {"cosine": RIGHT}, (plot,))  # type: ignore[arg-type]


def _reason(found: Mapping[str, float]) -> str:
    by_nudge, by_phase = found["cosine_at_weaker_nudges"], found["cosine_at_longer_phases"]
    if found["cosine"] >= RIGHT:
        return "nudge and phase serve"
    if not math.isfinite(found["cosine"]):
        return "the nudged phase blows up"
    shorter = f"a longer nudged phase gives {by_phase:.3f}"
    if by_phase >= RIGHT and not by_nudge >= RIGHT:
        flat = " whatever the nudge" if found["spread_over_nudges"] < _FLAT else ""
        return f"it is so low{flat}, and {shorter}, so the phase ends before it has settled"
    if by_nudge >= RIGHT and not by_phase >= RIGHT:
        return f"a weaker nudge gives {by_nudge:.3f}, so the nudge is too strong or a correction is clipped"
    if by_nudge >= RIGHT:
        return f"a weaker nudge gives {by_nudge:.3f}, and {shorter}"
    if found["cosine_at_both"] >= RIGHT:
        return f"a weaker nudge in a longer phase gives {found['cosine_at_both']:.3f}"
    return (
        f"the best of weaker nudges and longer phases gives {found['cosine_at_both']:.3f}, so the estimator is biased, "
        "and no setting of it repairs that"
    )


def _best(some: Any) -> float:
    """The highest that is finite; NaN without one."""
    return max((value for value in some if math.isfinite(value)), default=math.nan)


def _spread(some: list[float]) -> float:
    return max(some) - min(some)
