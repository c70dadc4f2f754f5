"""Run folders of `shared_moe` by hand: real configs, curves in closed form, no model and no training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from analysis.stats.interval import Interval
from analysis.view import Run
from tests.analysis.family_runs import CONTROL as CONTROL
from tests.analysis.family_runs import SEEDS as SEEDS
from tests.analysis.family_runs import Metrics, family_plan, family_run
from tests.analysis.values import estimate as estimate
from tests.analysis.values import number as number
from trainables.registry import build_config, get_family
from tune_rh.plan.schema import Plan

TOKENS = 1024
"""A step of the control."""
NO_AUX = {"balance": "none", "aux_loss_coef_start": 0.0, "aux_loss_coef_end": 0.0}
DENSE: dict[str, Any] = {
    "blocks": "indexed",
    "ffn": "dense",
    "num_experts": 0,
    "top_k": 0,
    "d_ff": 512,
    **NO_AUX,
}
T = 4.302652729911275
"""Student's t, 97.5%, 2 degrees of freedom."""
OWN = {7: -1.0, 42: 0.0, 1337: 1.0}
"""What a seed does to one candidate alone: its mean is zero and its standard deviation one."""
ALIKE = {7: 0.3, 42: -0.1, 1337: 0.02}
"""What a seed does to everybody: it leaves no trace in pairs."""
SMALLER: dict[str, Any] = {"num_experts": 4}
"""Fewer experts as wide as the control's: 0.64 of its parameters, at nearly its compute."""
LARGER: dict[str, Any] = {**DENSE, "batch_size": 16}
"""Dense, with steps of twice as many tokens."""


def aux(coefficient: float) -> dict[str, Any]:
    """Fields of an auxiliary loss whose coefficient stays."""
    if coefficient == 0.0:
        return NO_AUX
    return {"balance": "aux", "aux_loss_coef_start": coefficient, "aux_loss_coef_end": coefficient}


def told(loss: float, step: int, **others: float) -> dict[str, float]:
    """One report; ``others`` replace or add metrics, and NaN leaves one out."""
    usual = {"tokens": float(TOKENS * step), "tokens_per_s": 1000.0, "balance_entropy": 0.9, "max_vio": 0.5}
    found = {"eval_loss": loss, **usual, "dead_share": 0.0, **others}
    return {name: value for name, value in found.items() if value == value}


def moe_plan(configs: Mapping[str, Mapping[str, Any]], **changes: Any) -> Plan:
    """See `family_plan`."""
    return family_plan("shared_moe", configs, **changes)


def moe_run(folder: Path, configs: Mapping[str, Mapping[str, Any]], metrics: Metrics, **others: Any) -> Run:
    """See `family_run`."""
    return family_run(folder, "shared_moe", configs, metrics, **others)


def is_close(found: Interval, value: float, half: float) -> bool:
    return (found.value, found.low, found.high) == pytest.approx((value, value - half, value + half), abs=1e-9)


def config_of(**fields: Any) -> Any:
    return build_config(get_family("shared_moe"), fields, preset=CONTROL)


def falling(label: str, seed: int, step: int) -> dict[str, float]:
    """Losses that fall in straight lines over tokens; the dense one has batches twice as large."""
    start, slope, own, batch = {
        CONTROL: (8.0, 20.0, 0.0, 1),
        "quick": (7.5, 20.0, 0.05, 1),
        "dense": (7.8, 20.0, 0.0, 2),
    }[label]
    tokens = float(TOKENS * batch * step)
    return told(start - slope * tokens / 1e6 + ALIKE[seed] + own * OWN[seed], step, tokens=tokens)
