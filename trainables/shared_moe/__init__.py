"""Language models whose depth shares one mixture of experts: the family's name, metrics, presets and health.

Nothing here imports torch, numpy or pydantic: those load with the parts named below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.api import Family, HealthCheck, Metric
from trainables.language.metrics import EVAL_LOSS, OF_EVERY_LANGUAGE_MODEL

_TRAIN_CE = Metric("train_ce", "min", "nats per token", "The cross-entropy's part of train_loss.")
# What a mixture of experts reports besides. Loads are shares of assignments on the evaluated sequences.
_OF_EXPERTS = (
    Metric("train_aux", "min", "1", "The auxiliary loss before its coefficient: 1 is uniform, E/k a collapse onto k."),
    Metric("aux_coef", "min", "1", "Coefficient of the auxiliary loss at the step."),
    Metric("train_z", "min", "1", "The router's z-loss before its coefficient: mean squared logsumexp of the logits."),
    Metric("eval_aux", "min", "1", "The auxiliary loss on the validation split."),
    Metric(
        "balance_entropy", "max", "1", "Entropy of the load, averaged over depth, as a share of ln E; 1 is uniform."
    ),
    Metric("balance_entropy_min", "max", "1", "The same at the depth where it is lowest."),
    Metric("load_max", "min", "1", "Load of the busiest expert, averaged over depth."),
    Metric("load_min", "max", "1", "Load of the idlest expert, averaged over depth."),
    Metric("load_top4", "min", "1", "Load of the four busiest experts together."),
    Metric("max_vio", "min", "1", "E x load_max - 1: how far the busiest expert is above its share."),
    Metric("dead_experts", "min", "experts", "Experts with less than a tenth of a fair share."),
    Metric("dead_share", "min", "1", "dead_experts as a share of all."),
    Metric("token_drop", "min", "1", "Share of assignments that reached no expert."),
    Metric("depth_specialisation", "max", "1", "Mean Jensen-Shannon distance of a depth's load to the mean load."),
)

_COLLAPSE: dict[str, Any] = {"id": "H20", "in_a_row": 3, "after_step": 500, "required": False, "stops": True}
_HEALTH = (
    HealthCheck("balance_entropy", at_least=0.6, **_COLLAPSE),
    HealthCheck("max_vio", at_most=7.0, **_COLLAPSE),  # the busiest expert has more than 8 / E of the load
    HealthCheck("dead_share", at_most=0.25, **_COLLAPSE),
)

_NO_EXPERTS: dict[str, Any] = {
    "ffn": "dense",
    "num_experts": 0,
    "top_k": 0,
    "balance": "none",
    "aux_loss_coef_start": 0.0,
    "aux_loss_coef_end": 0.0,
}

_MIDSIZE: dict[str, Any] = {"width": 640, "depth": 16, "n_heads": 10}
_MIDSIZE_MATCHED: dict[str, Any] = {**_MIDSIZE, "top_k": 3, "d_ff": 2184}  # experts of the control's compute a layer

# A CPU core takes some ten of these steps a second.
_CPU: dict[str, Any] = {
    "data": "wiki",
    "vocab_size": 4096,
    "context": 128,
    "width": 128,
    "depth": 4,
    "n_heads": 4,
    "d_ff": 256,
    "num_experts": 16,
    "batch_size": 8,
    "lr": 1e-3,
    "schedule_steps": 600,
    "warmup": 18,
    "eval_sequences": 64,
}

_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "control": {},
    "indexed-dense": {**_NO_EXPERTS, "blocks": "indexed", "d_ff": 4096},
    # The notes' dense baseline; `indexed-dense` is their recurrent one.
    "gpt2-tied": {
        **_NO_EXPERTS,
        "blocks": "indexed",
        "d_ff": 4096,
        "tied": True,
        "gelu_approximate": "tanh",
        "lr_final": 0.0,
    },
    "shared-dense": {**_NO_EXPERTS, "d_ff": 4096},
    "half-notes": {"width": 512, "depth": 12, "n_heads": 8},
    "midsize": _MIDSIZE,
    "midsize-top3": {**_MIDSIZE, "top_k": 3},
    "midsize-top4": {**_MIDSIZE, "top_k": 4},
    "midsize-matched": _MIDSIZE_MATCHED,
    # Depth is free where it is shared: the same parameters, and nearly the control's compute in all.
    "midsize-matched-depth26": {**_MIDSIZE_MATCHED, "depth": 26},
    "half-matched": {"num_experts": 19, "tied": True},
    "cpu-tiny": _CPU,
    # A baseline at a learning rate of its own: at the others' 1e-3 it ends 0.13 nats worse.
    "cpu-tiny-dense": {**_CPU, **_NO_EXPERTS, "blocks": "indexed", "d_ff": 512, "lr": 3e-3},
    # For tests of whatever handles tasks: every mechanism that keeps state is on, and a step takes milliseconds.
    "tiny": {
        **_CPU,
        "data": "pydoc",
        "context": 16,
        "width": 16,
        "depth": 2,
        "n_heads": 2,
        "d_ff": 16,
        "num_experts": 4,
        "depth_embedding": True,
        "aux_loss_coef_end": 0.001,
        "aux_decay_end_frac": 0.5,
        "z_loss_coef": 0.001,
        "batch_size": 4,
        "accumulation": 2,
        "eval_sequences": 8,
    },
}

FAMILY = Family(
    name="shared_moe",
    summary="Language model on real text: one block of attention and experts, applied over and over.",
    config="trainables.shared_moe.config:SharedMoEConfig",
    model="trainables.shared_moe.model:SharedMoE",
    task="trainables.shared_moe.task:SharedMoETask",
    data="trainables.text.source:SOURCE",
    objective=EVAL_LOSS,
    metrics=(*OF_EVERY_LANGUAGE_MODEL, _TRAIN_CE, *_OF_EXPERTS),
    presets=_PRESETS,
    health=_HEALTH,
    spaces="search_spaces.shared_moe:SPACES",
    sample="trainables.language.sample:draw",
    baselines="analysis.language.baselines:baselines",
    diagnostics="analysis.shared_moe:DIAGNOSTICS",
    preflight="trainables.shared_moe.accounting:PREFLIGHT",
    causal="trainables.language.sample:probe",
)
