"""Small configs of `shared_moe` for tests."""

from __future__ import annotations

from typing import Any

from trainables.registry import build_config, get_family
from trainables.shared_moe.config import SharedMoEConfig

PLAIN: dict[str, Any] = {"balance": "none", "aux_loss_coef_start": 0.0, "aux_loss_coef_end": 0.0}
NO_AUX: dict[str, Any] = {**PLAIN, "aux_decay_end_frac": 0.0}
DENSE: dict[str, Any] = {**NO_AUX, "ffn": "dense", "num_experts": 0, "top_k": 0, "z_loss_coef": 0.0}

VARIANTS: dict[str, dict[str, Any]] = {
    "shared": {},
    "indexed, tied": {"blocks": "indexed", "tied": True, "depth_embedding": False},
    "one expert a token": {"top_k": 1, "gate": "prob"},
    "sigmoid": {"gate": "sigmoid", "top_k": 3},
    "dense": DENSE,
}


def tiny(**fields: Any) -> SharedMoEConfig:
    """Preset ``tiny`` with other fields."""
    config = build_config(get_family("shared_moe"), fields, preset="tiny")
    assert isinstance(config, SharedMoEConfig)
    return config
