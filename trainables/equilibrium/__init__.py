"""Language models at a fixed point, trained by equilibrium propagation: the family's name, metrics, presets and health.

Nothing here imports torch, numpy or pydantic: those load with the parts named below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.api import Family, HealthCheck, Metric
from trainables.language.metrics import EVAL_LOSS, OF_EVERY_LANGUAGE_MODEL

VAL_CE = Metric(
    "val_ce",
    "min",
    "nats per token",
    "Mean cross-entropy of the next token on the validation split, at the free state.",
)
_OF_A_STEP = (
    Metric("train_ce", "min", "nats per token", "The cross-entropy's part of train_loss."),
    Metric("residual", "min", "1", "|F| / |z| at the end of the free phase, in units of force."),
    Metric("step_residual", "min", "1", "eps |F| / |z|: how far the last step of the free phase moved, about."),
    Metric("rho", "min", "1", "Adjoint residual |J'a - g| / |g| of the estimate that was taken."),
    Metric("selected", "min", "steps", "Nudged step that the estimate was taken at."),
    Metric("nudged_steps", "min", "steps", "Nudged steps that were taken; of implicit, products with the Jacobian."),
    Metric("moved", "min", "1", "|z_beta - z*| / |z*|: how far the nudge moved the state."),
    Metric("drift", "min", "1", "The same of the mean of the nudged states."),
    Metric("adjoint_norm", "min", "1", "Norm of the adjoint a of the summed loss, a token."),
    Metric("adjoint_growth", "min", "1", "adjoint_norm over its median in the last hundred steps."),
    Metric("train_penalty", "min", "1", "Hutchinson's estimate of |J + kappa I|^2 / n, before its weight."),
    Metric("jr", "min", "1", "Weight of the penalty after the step, before its cap."),
    Metric("jr_pinned", "min", "steps", "Steps in a row that the weight has been at its maximum for."),
    Metric("jac_ratio", "min", "1", "Norm of the penalty's gradient, weighted, over that of the loss's."),
    Metric("loss_cosine", "max", "1", "Cosine of the loss's gradient and the whole one."),
    Metric("loss_rebound", "min", "nats per token", "How far the smoothed train_ce is above its least value so far."),
)
_OF_AN_EVALUATION = (
    Metric("cosine", "max", "1", "Cosine of the estimated gradient and the implicit one, the head's left out."),
    Metric("norm_ratio", "max", "1", "Norm of the estimated gradient over that of the implicit one, the same weights."),
    Metric("non_normality", "min", "1", "|Jv - J'v| / |Jv| at the free state for a random v."),
    Metric("frozen_non_normality", "min", "1", "The same where the estimator freezes the Jacobian; 0 for others."),
    Metric("abscissa", "min", "1", "Largest real part of an eigenvalue of the Jacobian at the free state."),
    Metric("eval_residual", "min", "1", "|F| / |z| of the states that predictions were read from."),
)

_OPTIONAL: dict[str, Any] = {"required": False}  # not every estimator and every penalty has them
_SEEN: dict[str, Any] = {"in_a_row": 3, **_OPTIONAL}
_HEALTH = (
    HealthCheck("step_residual", at_most=5e-3, id="H30", **_SEEN),
    HealthCheck("step_residual", at_most=0.05, id="H31", stops=True, **_SEEN),
    HealthCheck("jr_pinned", at_most=200.0, id="H32", **_OPTIONAL),
    HealthCheck("jac_ratio", at_most=1.0, id="H33", **_SEEN),
    HealthCheck("jac_ratio", at_most=3.0, id="H34", stops=True, **_SEEN),
    HealthCheck("loss_cosine", at_least=0.5, id="H35", **_SEEN),
    HealthCheck("loss_rebound", at_most=0.3, id="H36", **_OPTIONAL),
    HealthCheck("frozen_non_normality", at_most=0.9, id="H37", **_OPTIONAL),
    HealthCheck("moved", at_most=0.05, id="H38", **_SEEN),
    HealthCheck("adjoint_growth", at_most=10.0, id="H39", **_SEEN),
    HealthCheck("abscissa", at_most=0.0, id="H40", **_OPTIONAL),
)

_CPU: dict[str, Any] = {
    "data": "wiki-257",
    "vocab_size": 257,
    "context": 24,
    "width": 48,
    "n_heads": 2,
    "d_ff": 192,
    "kappa": 1.0,
    "t1": 40,
    "eps": 0.25,
    "t2": 30,
    "t2_tol": 0.05,
    "jr_mode": "fixed",
    "jr": 0.002,
    "batch_size": 8,
    "lr": 6e-3,
    "schedule": "constant",
    "schedule_steps": 600,
    "warmup": 30,
    "eval_sequences": 128,
}

_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "c512": {},
    "c512-bptt": {"estimator": "bptt", "schedule": "wsd"},
    # What the campaign trained with: its own free phase, penalty and averages.
    "c512-notes": {
        "readout_norm": False,
        "qk_norm": True,
        "t1": 150,
        "t1_refine": 300,
        "select_every": 40,
        "t2": 160,
        "ema": 0.999,
    },
    "cpu-tiny": _CPU,
    "cpu-tiny-bptt": {**_CPU, "estimator": "bptt"},
    # For tests of whatever handles tasks: every mechanism that keeps state is on, and a step takes milliseconds.
    "tiny": {
        **_CPU,
        "data": "pydoc-257",
        "context": 8,
        "width": 8,
        "d_ff": 16,
        "kappa": 2.0,
        "t1": 12,
        "t2": 8,
        "select_every": 4,
        "navg": 2,
        "warm_switch_step": 2,
        "jr_mode": "controller",
        "jr": 0.1,
        "spec_rho": 0.9,
        "resreg": 0.1,
        "ema": 0.9,
        "batch_size": 4,
        "accumulation": 2,
        "eval_sequences": 8,
    },
}

FAMILY = Family(
    name="equilibrium",
    summary="Language model at the fixed point of one block, trained by equilibrium propagation.",
    config="trainables.equilibrium.config:EquilibriumConfig",
    model="trainables.equilibrium.model:EquilibriumModel",
    task="trainables.equilibrium.task:EquilibriumTask",
    data="trainables.text.source:TEXT_AND_BYTES",
    objective=VAL_CE,
    metrics=(
        VAL_CE,
        *(metric for metric in OF_EVERY_LANGUAGE_MODEL if metric != EVAL_LOSS),
        *_OF_A_STEP,
        *_OF_AN_EVALUATION,
    ),
    presets=_PRESETS,
    health=_HEALTH,
    spaces="search_spaces.equilibrium:SPACES",
    sample="trainables.language.sample:draw",
    baselines="analysis.language.baselines:baselines",
    diagnostics="analysis.equilibrium:DIAGNOSTICS",
    preflight="trainables.equilibrium.accounting:PREFLIGHT",
    causal="trainables.language.sample:probe",
)
