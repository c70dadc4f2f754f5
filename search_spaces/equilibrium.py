"""What can be tried on `equilibrium`: the estimator with what belongs to it, the two phases, and what stabilises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.api import Space, Trial

_NUDGED = ("ep", "aep_frozen", "aep_frozen_rc", "aep_tracking", "aep_dyadic", "holo")
_TINY_STEPS, _LONG_STEPS = (20, 60), (40, 160)
"""Bounds of the free phase."""
_TINY_LR, _LONG_LR = (1e-3, 1e-2), (2e-4, 3e-3)
_TINY_NUDGED, _LONG_NUDGED = (10, 40), (20, 240)
"""Bounds of the nudged phase."""
_TINY_POINTS, _LONG_POINTS = (4,), (4, 8)
"""On the circle; two of them are `aep_frozen`, and eight are too dear for a CPU."""
_RADII = (0.18, 0.5)
"""Of the circle: below, float32 cannot tell what eight points are for."""


def _estimators(trial: Trial) -> dict[str, Any]:
    """All that the campaign asked about, on an accelerator."""
    fields = _drawn(trial, _LONG_LR, _LONG_STEPS, _LONG_NUDGED, _LONG_POINTS)
    fields |= {
        "kappa": trial.suggest_categorical("kappa", (1.0, 2.0)),
        "navg": trial.suggest_categorical("navg", (1, 2, 4, 8, 16)),
        "spec_rho": trial.suggest_categorical("spec_rho", (None, 0.9)),
        "warm_switch_step": trial.suggest_categorical("warm_switch_step", (0, 1000, 3000)),
        "mode": trial.suggest_categorical("mode", ("softmax", "energy", "mono", "nemon")),
    }
    fields["tied"] = fields["mode"] == "energy"
    if fields["mode"] == "softmax":
        fields["qk_norm"] = trial.suggest_categorical("qk_norm", (False, True))
    return fields


def _estimators_tiny(trial: Trial) -> dict[str, Any]:
    """The estimator and its phases on a CPU."""
    return _drawn(trial, _TINY_LR, _TINY_STEPS, _TINY_NUDGED, _TINY_POINTS)


def _drawn(
    trial: Trial,
    lr: tuple[float, float],
    free: tuple[int, int],
    nudged: tuple[int, int],
    points: tuple[int, ...],
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "lr": trial.suggest_float("lr", *lr, log=True),
        "estimator": trial.suggest_categorical("estimator", ("bptt", "implicit", *_NUDGED)),
        "t1": trial.suggest_int("t1", *free, step=10),
        "jr_mode": trial.suggest_categorical("jr_mode", ("off", "fixed", "controller")),
    }
    estimator = fields["estimator"]
    if estimator == "bptt":
        fields["bptt_steps"] = fields["t1"] // trial.suggest_categorical("bptt_parts", (1, 2))
    else:
        fields["t2"] = trial.suggest_int("t2", *nudged, step=10)
    if estimator == "holo":
        fields["holo_points"] = trial.suggest_categorical("holo_points", points)
        fields["holo_radius"] = trial.suggest_float("holo_radius", *_RADII, log=True)
    elif estimator in _NUDGED:
        fields["beta"] = trial.suggest_float("beta", 0.01, 2.0, log=True)
    if estimator in _NUDGED:
        fields["select"] = trial.suggest_categorical("select", (True, False))
    if fields["jr_mode"] == "fixed":
        fields["jr"] = trial.suggest_float("jr", 1e-3, 0.3, log=True)
    elif fields["jr_mode"] == "controller":
        fields["jr"] = fields["jr_floor"] = trial.suggest_float("jr_floor", 1e-3, 0.1, log=True)
        fields["jr_max"] = trial.suggest_categorical("jr_max", (8.0, 16.0, 32.0))
    return fields


def _bptt_parts(config: Mapping[str, Any]) -> int:
    """The free phase over what ``bptt`` goes back through."""
    parts: int = config["t1"] // config["bptt_steps"]
    return parts


SPACES: dict[str, Space] = {
    "estimators": Space(
        suggest=_estimators,
        base="c512",
        summary="estimator, nudge, both phases, penalty, mode of the field and learning rate at width 512",
        auxiliary={"bptt_parts": _bptt_parts},
    ),
    "estimators-tiny": Space(
        suggest=_estimators_tiny,
        base="cpu-tiny",
        summary="estimator, nudge, both phases, penalty and learning rate on a CPU",
        auxiliary={"bptt_parts": _bptt_parts},
    ),
}
