"""Language models with native sparse attention, and their dense twins: the family's name, metrics, presets and health.

Nothing here imports torch, numpy or pydantic: those load with the parts named below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.api import Family, HealthCheck, Metric
from trainables.language.metrics import EVAL_LOSS, OF_EVERY_LANGUAGE_MODEL

_OF_SPARSE_ATTENTION = (
    Metric("gate_entropy", "max", "nats", "Entropy of the branches' shares of a head's gates; 1.099 is even."),
    Metric("gate_max", "min", "1", "Mean share of the branch that has most."),
    Metric("gate_collapse", "min", "1", "Share of gates that all but one branch has lost: entropy < .1, share > .95."),
    Metric("gate_sum", "max", "1", "Sum of a head's gates."),
    Metric(
        "gate_moved", "max", "1", "How far gates are from where all of them began; near 0 they have learnt nothing."
    ),
    Metric("share_cmp", "max", "1", "Mean share of the compressed branch in the gates."),
    Metric("share_sel", "max", "1", "Mean share of the selected branch in the gates."),
    Metric("share_win", "max", "1", "Mean share of the window in the gates."),
    Metric("coverage", "min", "1", "Share of the visible tokens that the selection reads, over all positions."),
    Metric("coverage_end", "min", "1", "The same over the last positions of a sequence."),
    Metric("dense_rows", "min", "1", "Share of queries whose selection reads every visible token."),
    Metric("pct_at_max", "min", "1", "Share of queries whose selection reads all that it may."),
    Metric("reads_share", "min", "1", "Keys read through all branches, as a share of what dense attention reads."),
    Metric("choice_entropy", "max", "1", "Entropy of the age of freely chosen blocks, as a share of an even choice's."),
    Metric("reads_mismatch", "min", "queries", "Queries counted in training whose reads were not the closed form's."),
    Metric(
        "eval_reads_mismatch", "min", "queries", "Queries of the evaluation whose reads were not the closed form's."
    ),
)
_FALLBACKS = Metric("fallbacks", "min", "1", "Times in a step that a fast kernel gave way to a slower one.")

_OPTIONAL: dict[str, Any] = {"required": False}  # the dense twin has no such metrics
_H10: dict[str, Any] = {"id": "H10", "in_a_row": 3, **_OPTIONAL}
_HEALTH = (
    HealthCheck("gate_entropy", at_least=0.5, **_H10),
    HealthCheck("gate_max", at_most=0.9, **_H10),
    HealthCheck("gate_collapse", at_most=0.01, **_H10),
    HealthCheck("gate_sum", at_least=0.1, **_H10),
    HealthCheck("share_cmp", at_least=0.05, at_most=0.9, **_H10),
    HealthCheck("share_sel", at_least=0.05, at_most=0.9, **_H10),
    HealthCheck("share_win", at_least=0.05, at_most=0.9, **_H10),
    HealthCheck("pct_at_max", at_most=0.1, id="H11", **_OPTIONAL),
    HealthCheck("coverage_end", at_most=0.5, id="H11", **_OPTIONAL),
    HealthCheck("reads_mismatch", at_most=0.0, id="H12", stops=True, **_OPTIONAL),
    HealthCheck("eval_reads_mismatch", at_most=0.0, id="H12", stops=True, **_OPTIONAL),
)

_CPU: dict[str, Any] = {
    "data": "wiki-257",
    "context": 512,
    "width": 128,
    "depth": 4,
    "n_heads": 4,
    "kv_groups": 2,
    "d_ff": 512,
    "block": 16,
    "stride": 8,
    "select_block": 16,
    "num_select": 8,
    "window": 64,
    "batch_size": 8,
    "lr": 1e-3,
    "schedule_steps": 600,
    "warmup": 30,
    "eval_sequences": 32,
}

_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "prod-125m": {"accumulation": 4, "checkpointing": True},
    "prod-125m-dense": {"accumulation": 4, "checkpointing": True, "attn": "dense"},
    # Fills the tiles of tensor cores: 16 heads a group.
    "prod-32h": {"accumulation": 4, "checkpointing": True, "width": 2048, "n_heads": 32, "d_ff": 8192},
    "cpu-tiny": _CPU,
    "cpu-tiny-dense": {**_CPU, "attn": "dense"},
    # Trained for 50,000 steps once, a day of two GPUs: at this length nothing is sparse. Kept to be refused.
    "showcase": {
        **_CPU,
        "context": 128,
        "block": 32,
        "stride": 16,
        "select_block": 32,
        "window": 64,
        "selection": "union",
        "amp": "off",
        "schedule_steps": 50_000,
        "warmup": 2000,
    },
    # For tests of whatever handles tasks: every mechanism that keeps state is on, and a step takes milliseconds.
    "tiny": {
        **_CPU,
        "data": "pydoc-257",
        "context": 96,
        "width": 16,
        "depth": 2,
        "n_heads": 4,
        "d_ff": 16,
        "num_select": 3,
        "num_local": 1,
        "window": 16,
        "batch_size": 4,
        "accumulation": 2,
        "reads_every": 2,
        "eval_sequences": 8,
    },
}

FAMILY = Family(
    name="nsa",
    summary="Byte-level language model with native sparse attention, beside a dense twin.",
    config="trainables.nsa.config:NSAConfig",
    model="trainables.nsa.model:NSAModel",
    task="trainables.nsa.task:NSATask",
    data="trainables.text.source:BYTES",
    objective=EVAL_LOSS,
    metrics=(*OF_EVERY_LANGUAGE_MODEL, _FALLBACKS, *_OF_SPARSE_ATTENTION),
    presets=_PRESETS,
    health=_HEALTH,
    spaces="search_spaces.nsa:SPACES",
    sample="trainables.language.sample:draw",
    baselines="analysis.language.baselines:baselines",
    diagnostics="analysis.nsa:DIAGNOSTICS",
    preflight="trainables.nsa.accounting:PREFLIGHT",
    causal="trainables.language.sample:probe",
)
