"""What can be tried on `spacing_mdn`: functions that draw a config's fields, and the table of them."""

from __future__ import annotations

from typing import Any

from search_spaces.api import Space, Trial


def _e55(trial: Trial) -> dict[str, Any]:
    """Training and losses of the memory models, at the published size: slots after the data, permuted IDs."""
    fields: dict[str, Any] = {
        "lr": trial.suggest_float("lr", 1e-4, 3e-3, log=True),
        "memory_lr_mult": trial.suggest_float("memory_lr_mult", 0.1, 1.0, log=True),
        "n_slots": trial.suggest_categorical("n_slots", (4, 8, 16)),
        "n_components": trial.suggest_categorical("n_components", (4, 8, 16)),
        "slot_dropout": trial.suggest_float("slot_dropout", 0.0, 0.3),
        "perm_warmup_steps": trial.suggest_categorical("perm_warmup_steps", (0, 500, 2000)),
        "dropout": trial.suggest_categorical("dropout", (0.0, 0.1)),
        "entropy_reg": trial.suggest_categorical("entropy_reg", (0.0, 0.005)),
        "ortho_weight": trial.suggest_categorical("ortho_weight", (0.0, 1e-3, 1e-2, 1e-1)),
        "aux_mode": trial.suggest_categorical("aux_mode", ("off", "mean", "diagonal")),
    }
    if fields["aux_mode"] != "off":
        fields["aux_weight"] = trial.suggest_float("aux_weight", 1e-3, 1e-1, log=True)
    return fields


def _architecture(trial: Trial) -> dict[str, Any]:
    """What the model is: layout, slots and their modes, size, and inputs beyond the spacings."""
    fields: dict[str, Any] = {
        "lr": trial.suggest_float("lr", 1e-4, 3e-3, log=True),
        "depth": trial.suggest_categorical("depth", (4, 6, 8)),
        "width": trial.suggest_categorical("width", (128, 256, 384)),
        "head_bias": trial.suggest_categorical("head_bias", (False, True)),
        "height_input": trial.suggest_categorical("height_input", (False, True)),
        "ar_features": trial.suggest_categorical("ar_features", (0, 16, 32, 64)),
        "layout": trial.suggest_categorical("layout", ("none", "prefix", "postfix")),
    }
    if fields["layout"] != "none":
        fields["n_slots"] = trial.suggest_categorical("n_slots", (4, 8, 16))
    if fields["layout"] == "postfix":
        fields["readout"] = trial.suggest_categorical("readout", ("states", "weights"))
        fields["query_cuts"] = trial.suggest_categorical("query_cuts", (1, 2, 4, 8))
        fields["aux_mode"] = trial.suggest_categorical("aux_mode", ("off", "mean", "diagonal"))
        fields["slot_id_mode"] = trial.suggest_categorical("slot_id_mode", ("fixed", "off", "permute_per_batch"))
        fields["eval_slot_id_mode"] = _evaluated(trial, fields["slot_id_mode"])
    return fields


def _evaluated(trial: Trial, slot_id_mode: str) -> str:
    """How IDs are set in evaluation: as in training, or learned under permutation and then held still."""
    if slot_id_mode != "permute_per_batch":
        return slot_id_mode
    mode: str = trial.suggest_categorical("eval_slot_id_mode", ("fixed", "permute_per_batch"))
    return mode


_ATTENTION: dict[str, Any] = {
    "context": 256,
    "eval_tail": 64,
    "eval_stride": 16,
    "width": 64,
    "batch_size": 8,
    "weight_decay": 0.01,
    "entropy_reg": 0.005,
}
"""Of a small GPT, where `cpu-mlp` has those of a small MLP."""


def _cpu_quickstart(trial: Trial) -> dict[str, Any]:
    """What matters on a laptop: what is computed from the past, what reads it, and how fast that learns."""
    fields: dict[str, Any] = {
        "lr": trial.suggest_float("lr", 1e-3, 1e-2, log=True),
        "depth": trial.suggest_categorical("depth", (1, 2)),
        "n_components": trial.suggest_categorical("n_components", (4, 8)),
        "layout": trial.suggest_categorical("layout", ("none", "mlp")),
    }
    if fields["layout"] == "none":
        return {**fields, **_ATTENTION, "ar_features": trial.suggest_categorical("ar_features", (0, 16, 32))}
    fields["width"] = trial.suggest_categorical("width", (64, 96, 128))
    fields["prime_lines"] = trial.suggest_categorical("prime_lines", (0, 30, 100, 300))
    if fields["prime_lines"]:
        fields["prime_window"] = trial.suggest_categorical("prime_window", (256, 1024))
        fields["prime_grid"] = trial.suggest_categorical("prime_grid", (False, True))
    else:
        fields["ar_bank"] = trial.suggest_categorical("ar_bank", (256, 1024))
    return fields


def _mlp(trial: Trial) -> dict[str, Any]:
    """Size and training of the small network, whatever it reads."""
    return {
        "lr": trial.suggest_float("lr", 1e-3, 1e-2, log=True),
        "width": trial.suggest_categorical("width", (64, 96, 128, 192)),
        "depth": trial.suggest_categorical("depth", (1, 2, 3)),
        "n_components": trial.suggest_categorical("n_components", (4, 8, 12)),
        "dropout": trial.suggest_categorical("dropout", (0.0, 0.05)),
        "weight_decay": trial.suggest_categorical("weight_decay", (1e-3, 1e-2, 1e-1)),
        "batch_size": trial.suggest_categorical("batch_size", (256, 512)),
    }


def _class_1(trial: Trial) -> dict[str, Any]:
    """Spacings alone: banks of online autoregressions by the longest past, and what reads them."""
    return {**_mlp(trial), "ar_bank": trial.suggest_categorical("ar_bank", (256, 1024, 4096))}


def _primes(trial: Trial) -> dict[str, Any]:
    """Lines of the primes, fitted to the past (class II, or I' at an inferred height) or exact (class III)."""
    fields = _mlp(trial)
    fields["prime_phases"] = trial.suggest_categorical("prime_phases", ("fitted", "exact"))
    fields["prime_lines"] = trial.suggest_categorical("prime_lines", (30, 100, 300, 600, 1000))
    fields["prime_grid"] = True
    if fields["prime_phases"] == "fitted":
        fields["prime_window"] = trial.suggest_categorical("prime_window", (256, 1024, 2048))
        fields["prime_noise"] = trial.suggest_categorical("prime_noise", (0.01, 0.02, 0.04))
        fields["height_source"] = trial.suggest_categorical("height_source", ("given", "inferred"))
        if fields["height_source"] == "given":
            fields["height_input"] = trial.suggest_categorical("height_input", (False, True))
    return fields


SPACES: dict[str, Space] = {
    "e55": Space(
        suggest=_e55,
        base="e55",
        summary="losses and training of memory slots with permuted IDs, all zeros, an accelerator",
    ),
    "architecture": Space(
        suggest=_architecture,
        base="e0",
        summary="layout, slots, size and inputs, all zeros, an accelerator",
    ),
    "cpu-quickstart": Space(
        suggest=_cpu_quickstart,
        base="cpu-mlp",
        summary="features of the past, what reads them and learning rate, in minutes on a CPU",
    ),
    "mlp": Space(
        suggest=_mlp,
        base="cpu-mlp",
        summary="size and training of the small network; what it reads, and may know, is fixed by the plan",
    ),
    "class-1": Space(
        suggest=_class_1,
        base="cpu-mlp",
        summary="banks of online autoregressions and the small network on them, in minutes on a CPU",
    ),
    "primes": Space(
        suggest=_primes,
        base="cpu-mlp",
        summary="lines of the primes, fitted or exact, and the small network on them, in minutes on a CPU",
    ),
}
