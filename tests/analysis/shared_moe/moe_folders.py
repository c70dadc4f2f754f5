"""Run folders of `shared_moe` by hand: real configs, curves in closed form, no model and no training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.stats.interval import Interval
from analysis.view import Run
from tests.analysis.run_folders import read_run, write_run
from tests.analysis.values import estimate as estimate
from tests.analysis.values import number as number
from tests.worlds.plans import plan
from tests.worlds.scripted import Fate, Simulation
from trainables.registry import build_config, get_family
from tune_rh.plan.schema import Plan
from tune_rh.record.events import CandidateAdded, Evaluated, Event, RunCreated, SessionEnded
from tune_rh.record.journal import JOURNAL_SCHEMA

CONTROL = "cpu-tiny"
SEEDS = (7, 42, 1337)
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
Metrics = Callable[[str, int, int], dict[str, float]]


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
    """A search of the control and ``configs`` (fields over the control's, by label) in one stage of 3 seeds."""
    fields: dict[str, Any] = {
        "family": "shared_moe",
        "space": "",
        "control": CONTROL,
        "presets": list(configs),
        "configs": {label: {"preset": CONTROL, "fields": dict(fields)} for label, fields in configs.items()},
        "num_candidates": len(configs),
        "seeds": list(SEEDS),
        "stages": [{"until_step": 100, "num_seeds": len(SEEDS)}],
    }
    return plan(**{**fields, **changes})


def moe_run(
    folder: Path,
    configs: Mapping[str, Mapping[str, Any]],
    metrics: Metrics,
    *,
    fates: Mapping[tuple[int, int], Fate] | None = None,
    step_s: Mapping[str, float] | None = None,
    **changes: Any,
) -> Run:
    """Run it to the end and read it.

    Args:
        folder: of the run.
        configs, changes: see `moe_plan`.
        metrics: (label, seed, step) -> what is reported.
        fates: by (index, seed), the control is 0.
        step_s: seconds of training a step by label; 0.1 where there is none.
    """
    of = moe_plan(configs, **changes)
    labels = [CONTROL, *configs]
    done = Simulation(of, lambda index, seed, step: metrics(labels[index], seed, step), fates=fates, slots=2).run()
    made = RunCreated(of.fingerprint(), "digest", JOURNAL_SCHEMA, "config")
    events = [made, *_real(done.events, labels, of, step_s or {}), SessionEnded(1, 0.0, "finished")]
    return read_run(write_run(folder, of, events))


def _real(events: Sequence[Event], labels: Sequence[str], of: Plan, step_s: Mapping[str, float]) -> Iterator[Event]:
    family = get_family("shared_moe")
    for event in events:
        if isinstance(event, CandidateAdded):
            label = labels[int(event.candidate[1:])]
            fields = of.configs[label].fields if label in of.configs else {}
            config = build_config(family, fields, preset=CONTROL)
            origin = "preset" if label in of.configs else "control"
            yield replace(
                event, config=config.model_dump(mode="json"), config_digest=config.digest(), origin=origin, label=label
            )
        elif isinstance(event, Evaluated):
            label = labels[int(event.member.candidate[1:])]
            yield replace(event, train_s=of.eval_every * step_s.get(label, 0.1))
        else:
            yield event


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
