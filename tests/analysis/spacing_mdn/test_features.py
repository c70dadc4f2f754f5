"""Diagnostics of models that read features: what they gain by each, and how far the lines of the primes carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from analysis.spacing_mdn.channel_gain import channel_gain, groups
from analysis.spacing_mdn.nll_by_primes import nll_by_primes
from tests.analysis.conftest import MakeSubject, MakeTask
from trainables.knowledge import Knowledge
from trainables.spacing_mdn.config import SpacingConfig, num_channels

MLP: dict[str, Any] = {
    "layout": "mlp",
    "n_slots": 0,
    "slot_id_mode": "fixed",
    "eval_slot_id_mode": "fixed",
    "slot_dropout": 0.0,
    "aux_mode": "off",
    "ar_bank": 256,
}


@pytest.mark.parametrize("fields", [{}, {"height_input": True, "prime_lines": 3, "prime_grid": True}])
def test_groups_are_all_channels_once(fields: dict[str, Any]) -> None:
    config = SpacingConfig(**{name: MLP[name] for name in ("layout", "ar_bank")}, **fields)
    channels = [channel for some in groups(config).values() for channel in range(some.start, some.stop)]
    assert channels == list(range(num_channels(config)))


def test_a_model_that_reads_one_group_gains_by_it_alone(make_task: MakeTask, make_subject: MakeSubject) -> None:
    """Its mean is the offset and its width hangs on the last spacing: all else may be dealt anew."""
    task = make_task(**MLP, n_components=1, dropout=0.0)
    model = task.model
    assert model.mlp is not None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.mlp.layers[0].weight[0, 31] = 2.0
        model.head.weight[2, 0] = 0.3
        model.head.bias[2] = 0.5
    finding = channel_gain(make_subject(task))
    values = finding.values
    assert set(values) == {"spacings", "offset", "AR16_of_256", "AR32_of_256", "AR64_of_256"}
    for name in ("AR16_of_256", "AR32_of_256", "AR64_of_256"):
        assert values[name].value == 0.0
    assert values["offset"].value > 0.1
    assert values["spacings"].value != 0.0
    assert finding.summary.startswith("Of 5 groups of inputs the model gets most from offset")


def test_a_model_without_features_has_nothing_to_take_away(make_task: MakeTask, make_subject: MakeSubject) -> None:
    assert channel_gain(make_subject(make_task())).verdict == "no_evidence"


@dataclass
class _Member:
    best: float
    reports: tuple[int, ...] = (1,)


@dataclass
class _Candidate:
    config: dict[str, Any]
    knowledge: Knowledge | None
    members: dict[int, _Member]


@dataclass
class _Run:
    candidates: dict[str, _Candidate] = field(default_factory=dict)

    def add(self, bound: int, name: str, *values: float) -> None:
        members = {seed: _Member(value) for seed, value in enumerate(values)}
        knows = Knowledge(3, name, 256)
        self.candidates[f"c{len(self.candidates)}"] = _Candidate({"prime_lines": bound}, knows, members)


def test_the_curve_has_the_best_of_each_bound_by_class() -> None:
    run = _Run()
    run.add(2, "class III", 0.5, 0.7)
    run.add(10, "class III", -1.0)
    run.add(10, "class III", -1.5)
    run.add(0, "class I", -9.0)
    run.add(30, "class II", -1.2)
    run.add(10, "class III", float("nan"))
    finding = nll_by_primes(run)
    assert dict(finding.values) == {"class_III_P2": pytest.approx(0.6), "class_III_P10": -1.5}
    assert finding.plots[0].series[0].x == (2, 10)
    assert "lines up to 2 has 0.600 nats per spacing; of 2 bounds 10 does best, with -1.500" in finding.summary


def test_one_bound_is_no_curve() -> None:
    run = _Run()
    run.add(30, "class II", -1.2)
    assert nll_by_primes(run).verdict == "no_evidence"
