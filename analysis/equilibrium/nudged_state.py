"""What becomes of the states under the nudge: how far they go, how large the contrast grows, whether it settles?

What it is: the nudged phase of the model's own estimator stopped after more and more steps, without selection: |a| of
the contrast beside the exact adjoint's, how far the first nudged state and the mean of both have moved from the free
state, and the adjoint residual. A contrast that outgrows the adjoint is on its way to infinity; a mean that moves as
much as the states do means that the free state was not at rest, or that the field under the nudge is not the field.
What it is not: the direction of the gradient, which other diagnostics judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, Verdict, answer, diagnostic
from analysis.equilibrium.looked import estimated, exact, own_name, problem_of

_MOST_MOVED = 0.05
"""Of the first nudged state, as live health has it (H38)."""
_MOST_GROWN = 2.0
"""Norm of the contrast over the exact adjoint's."""
_MOST_RHO = 0.3
"""Adjoint residual of the estimate that is taken."""
_MOST_DRIFT = 0.8
"""Of the mean of the states, as a share of how far the first has moved."""
_PARTS = 8

Trace = Sequence[tuple[int, Mapping[str, float]]]


@diagnostic("states under the nudge, step by step")
def nudged_state(subject: Any) -> Finding:
    """Return a finding with values of the estimate as configured: ``moved`` and ``drift`` as shares of the free state's
    norm, ``adjoint_ratio`` (norm of the contrast over the exact adjoint's), ``rho``, ``selected`` in nudged steps; and
    ``adjoint_ratio_at_end`` of a phase of all its steps without selection.
    """
    config = subject.config
    if config.estimator in ("bptt", "implicit"):
        raise NoEvidence(f"{config.estimator} has no nudged states.")
    problem = problem_of(subject)
    reference = exact(problem).adjoint
    assert reference is not None
    scale = float(reference.norm())

    def told(**fields: Any) -> dict[str, float]:
        estimate = estimated(problem, **fields)
        seen = estimate.evidence
        assert seen is not None
        assert estimate.adjoint is not None
        distances = {"moved": seen.moved or 0.0, "drift": seen.drift or 0.0}
        return {
            **distances,
            "adjoint_ratio": float(estimate.adjoint.norm()) / scale,
            "rho": seen.rho,
            "at": seen.selected,
        }

    steps = sorted({max(1, config.t2 * part // _PARTS) for part in range(1, _PARTS + 1)})
    trace = [(step, told(t2=step, t2_tol=None, select=False)) for step in steps]
    return judge(own_name(config), told(), trace)


def judge(name: str, taken: Mapping[str, float], trace: Trace) -> Finding:
    """The finding on what `Evidence` and the contrast say of the estimate, and after so many steps."""
    at_end = trace[-1][1]["adjoint_ratio"]
    values: dict[str, Value] = {n: taken[n] for n in ("moved", "drift", "adjoint_ratio", "rho")}
    values |= {"selected": taken["at"], "adjoint_ratio_at_end": at_end}
    drifts = taken["drift"] > _MOST_DRIFT * taken["moved"]
    faults, odd = [], []
    if not taken["adjoint_ratio"] <= _MOST_GROWN:
        faults.append(f"the contrast is {taken['adjoint_ratio']:.3g} times as long as the exact adjoint")
    if not taken["rho"] <= _MOST_RHO:
        faults.append(f"the adjoint equation is left with a residual of {taken['rho']:.2f}")
    if not at_end <= _MOST_GROWN and not faults:
        odd.append(f"without selection the contrast would grow to {at_end:.3g} times the adjoint")
    if drifts:
        odd.append(f"the mean of the states moves by {taken['drift']:.3f}: the free state was not at rest")
    elif not taken["moved"] <= _MOST_MOVED:
        odd.append(f"the nudge moves the state by {taken['moved']:.3f} of its norm, which is no small nudge")
    verdict: Verdict = "fail" if faults else "warn" if odd else "pass"
    settled = f"the nudged states settle, with a residual of {taken['rho']:.3f} after {taken['at']:.0f} steps"
    summary = f"Of {name} {'; '.join([*faults, *odd]) or settled}."
    threshold = {"moved": _MOST_MOVED, "adjoint_ratio": _MOST_GROWN, "rho": _MOST_RHO}
    steps = tuple(float(step) for step, _ in trace)
    labels = {
        "adjoint_ratio": "norm of a, over the exact one",
        "rho": "adjoint residual",
        "moved": "nudged state moved",
        "drift": "mean of states moved",
    }
    series = tuple(Series(label, steps, tuple(_positive(seen[n]) for _, seen in trace)) for n, label in labels.items())
    plot = Plot("The nudged phase, without selection", "nudged steps", "1", series=series, log_y=True)
    return answer(verdict, summary, values, threshold, (plot,))


def _positive(value: float) -> float:
    """For a logarithmic axis: zero leaves a gap."""
    return value if value > 0.0 else math.nan
