"""Mixture density networks over the spacings of the zeta zeros: the family's name, metrics and presets.

Nothing here imports torch, numpy or pydantic: those load with the parts named below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.api import Family, Metric

_VAL_NLL = Metric(
    "val_nll", "min", "nats per spacing", "Mean negative log density of the next spacing on the validation split."
)

# What every config reports. Reported besides, where the config has it on: `train_aux` and `train_ortho` (the losses
# before their weights), `val_nll_perm_mean` and `val_nll_perm_std` (over seeded permutations of the slots' IDs).
_METRICS = (
    _VAL_NLL,
    Metric("val_nll_se", "min", "nats per spacing", "Standard error of val_nll, as if its targets were independent."),
    Metric("train_loss", "min", "nats", "The loss that the step minimised, auxiliary parts included."),
    Metric("train_nll", "min", "nats per spacing", "The negative log density's part of train_loss."),
    Metric("grad_norm", "min", "1", "Norm of the gradient before clipping."),
    Metric("lr", "min", "1", "Learning rate of the step."),
)

_E1: dict[str, Any] = {"layout": "prefix", "n_slots": 8}
_E3: dict[str, Any] = {"layout": "postfix", "n_slots": 8}
_PERMUTED: dict[str, Any] = {"slot_id_mode": "permute_per_batch", "eval_slot_id_mode": "permute_per_batch"}
_E4: dict[str, Any] = {**_E3, **_PERMUTED, "aux_mode": "mean"}
_E5: dict[str, Any] = {**_E3, **_PERMUTED, "aux_mode": "diagonal", "ortho_weight": 0.01}
_E55: dict[str, Any] = {
    **_E5,
    "perm_warmup_steps": 2000,
    "eval_slot_id_mode": "fixed",
    "eval_perm_average": 8,
}

# Two runs of the notes with the recipe that their code has: biases at both ends, everything decays, and of `e4` a free
# weight a slot. What differs all the same stands in the README.
_NOTES: dict[str, Any] = {"head_bias": True, "decays": "all", "lr": 3e-4, "schedule_steps": 20_000}
_E0_NOTES: dict[str, Any] = {
    **_NOTES,
    "lr_final": 1 / 30,
    "betas": (0.9, 0.95),
    "weight_decay": 0.01,
    "warmup": 1500,
}
_E4_NOTES: dict[str, Any] = {**_E4, **_NOTES, "readout": "weights", "weight_decay": 0.1, "warmup": 0}

# A CPU core takes about 20 of these steps a second. Ramps and warm-ups shrink with the schedule.
_CPU: dict[str, Any] = {
    "data": "first100k",
    "width": 64,
    "depth": 2,
    "n_heads": 4,
    "dropout": 0.0,
    "batch_size": 8,
    "lr": 3e-3,
    "schedule_steps": 1800,
    "warmup": 50,
}
_CPU_SLOTS: dict[str, Any] = {
    "eval_stride": 32,
    "aux_ramp_first_steps": 90,
    "aux_ramp_steps": 540,
    "ortho_ramp_steps": 900,
}

# A small network on what is computed from the past: thousands of steps a minute.
_CPU_MLP: dict[str, Any] = {
    **_CPU,
    "layout": "mlp",
    "context": 32,
    "eval_tail": 32,
    "eval_stride": 1,
    "width": 96,
    "batch_size": 256,
    "weight_decay": 1e-3,
    "entropy_reg": 0.0,
}

_TINY: dict[str, Any] = {
    "context": 32,
    "width": 8,
    "depth": 1,
    "n_heads": 2,
    "n_components": 2,
    "dropout": 0.1,
    "batch_size": 4,
    "accumulation": 2,
    "eval_tail": 32,
}

_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "e0": {},
    "e1": _E1,
    "e2": _E1,  # here as `e1`; the notes' two differ in losses, of window statistics and of drift, that are not built
    "e3": _E3,
    "e4": _E4,
    "e5": _E5,
    "e55": _E55,
    "e0-notes": _E0_NOTES,
    "e4-notes": _E4_NOTES,
    "cpu-e0": _CPU,
    "cpu-ar32": {**_CPU, "ar_features": 32},
    "cpu-mlp": _CPU_MLP,
    "cpu-e4": {**_CPU, **_CPU_SLOTS, **_E4},
    "cpu-e5": {**_CPU, **_CPU_SLOTS, **_E5},
    "cpu-e55": {**_CPU, **_CPU_SLOTS, **_E55, "perm_warmup_steps": 360, "eval_perm_average": 2},
    # For tests of whatever handles tasks: every mechanism that keeps state is on, and a step takes milliseconds.
    "tiny": {
        **_CPU,
        **_CPU_SLOTS,
        **_E4,
        **_TINY,
        "n_slots": 2,
        "slot_dropout": 0.1,
        "eval_stride": 256,
    },
    # The same of what reads features.
    "tiny-mlp": {
        **_CPU_MLP,
        **_TINY,
        "ar_bank": 256,
        "prime_lines": 5,
        "prime_window": 100,
        "eval_stride": 64,
        "train_blocks": 20,
    },
}

FAMILY = Family(
    name="spacing_mdn",
    summary="Density of the next spacing of the zeta zeros: GPT blocks, memory slots, a mixture head.",
    config="trainables.spacing_mdn.config:SpacingConfig",
    model="trainables.spacing_mdn.model:SpacingModel",
    task="trainables.spacing_mdn.task:SpacingTask",
    data="trainables.spacing_mdn.data.source:SOURCE",
    objective=_VAL_NLL,
    metrics=_METRICS,
    presets=_PRESETS,
    spaces="search_spaces.spacing_mdn:SPACES",
    sample="trainables.spacing_mdn.sample:draw",
    baselines="analysis.spacing_mdn.baselines:baselines",
    diagnostics="analysis.spacing_mdn:DIAGNOSTICS",
    extraction="analysis.spacing_mdn.extraction:extract",
    preflight="trainables.spacing_mdn.config:PREFLIGHT",
    causal="trainables.spacing_mdn.sample:probe",
    knowledge="trainables.spacing_mdn.config:knowledge",
)
