"""How large a config is, what training it takes, and what of it cannot settle: standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainables.api import Finding, Footprint, Preflight
from trainables.equilibrium.layout import layout

_SETTLED = 5e-3
"""Residual of a step that health allows."""


def count_params(config: Any) -> int:
    """Parameters of the model of ``config``; equal to what its module has."""
    return sum(weight.size for weight in layout(config).values())


def memory_per_token(config: Any) -> int:
    """Numbers of four bytes that one token's training step keeps at its height, about.

    Autograd keeps one evaluation of the field: normed inputs, projections, shares, hidden units; of ``bptt`` one for
    each of its steps, of a frozen Jacobian and of the penalty three, for their gradients are differentiated. Estimators
    hold some states besides.
    """
    c, shares = config.width, config.n_heads * config.context
    evaluation = 5 * c + shares if config.mode in ("mono", "nemon") else 10 * c + 2 * config.d_ff + 2 * shares
    kept = {"bptt": config.bptt_steps, "aep_frozen": 3, "aep_frozen_rc": 3, "holo": 3}
    states = {"bptt": 1, "implicit": 24, "holo": 2 * config.holo_points + 4}
    evaluations = max(kept.get(name, 1) for name in config.estimators)
    if config.jr_mode != "off":
        evaluations = max(evaluations, 3)
    return int(evaluations * evaluation + max(states.get(name, 8) for name in config.estimators) * c)


def _footprint(config: Any) -> Footprint:
    tokens = config.batch_size // config.accumulation * config.context
    pairs = 1 if set(config.estimators) <= {"bptt", "implicit"} else 2
    return Footprint(
        parameters=count_params(config),
        activations=4 * tokens * memory_per_token(config),
        logits=4 * tokens * 3 * pairs * config.vocab_size,
        amp=config.amp,
        attention="none",
    )


def _check(config: Any) -> Iterator[Finding]:
    """P91: the free phase is too short to settle; P92: nothing keeps the Jacobian normal that an estimator freezes."""
    left = abs(1.0 - config.eps * config.kappa) ** config.t1
    if not config.anderson and config.eps * left > _SETTLED:
        yield Finding(
            "P91",
            "t1",
            f"{config.t1}: of a state {left:.2g} is left to come after so many steps of eps = {config.eps:g} with "
            f"kappa = {config.kappa:g}; estimators that take it to be at rest are biased",
            level="warn",
        )
    frozen = [name for name in config.estimators if name in ("aep_frozen", "aep_frozen_rc", "holo")]
    if frozen and config.jr_mode == "off" and config.mode == "softmax":
        yield Finding(
            "P92",
            "estimator",
            f"{frozen[0]!r}: freezes the Jacobian, and with jr_mode = 'off' nothing keeps it normal: above a "
            "non-normality of 0.9 (H37) its gradient is of no use",
            level="warn",
        )


PREFLIGHT = Preflight(
    footprint=_footprint,
    toys=("cpu-tiny", "cpu-tiny-bptt", "tiny"),
    least={"P31": ("context", 256), "P32": ("width", 256)},
    rules=dict.fromkeys(
        (
            "n_heads", "tied", "qk_norm", "eps", "eps_nudged", "t1_refine", "bptt_steps", "holo_points", "holo_radius",
            "beta", "t2", "jr", "jr_floor",
        ),
        "P90",
    ),
    check=_check,
)  # fmt: skip
