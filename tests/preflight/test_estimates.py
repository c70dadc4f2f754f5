"""Estimates of memory and disk beside what jobs and runs really take."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tune_rh
from trainables.api import Footprint
from trainables.language.task import losses
from trainables.registry import build_config, get_family, get_part, resolve
from trainables.shared_moe.model import SharedMoE
from trainables.spacing_mdn.loss import mixture_nll
from trainables.spacing_mdn.model import SpacingModel
from tune_rh.plan.file import resolve_plan
from tune_rh.preflight.environment import GIB
from tune_rh.preflight.estimates import checkpoint_bytes, run_bytes, training_bytes

MOE: dict[str, Any] = {"width": 64, "depth": 3, "n_heads": 4, "d_ff": 64, "num_experts": 4, "vocab_size": 512}
MOE |= {"context": 64, "batch_size": 16, "accumulation": 4}
DENSE = {"ffn": "dense", "num_experts": 0, "top_k": 0, "balance": "none"}
DENSE |= {"aux_loss_coef_start": 0.0, "aux_loss_coef_end": 0.0}
SPACING: dict[str, Any] = {"width": 64, "depth": 3, "n_heads": 4, "batch_size": 16, "accumulation": 4, "context": 64}
LRS = (1e-3, 2e-3, 3e-3, 4e-3)
SLOTS = {"layout": "postfix", "n_slots": 8}


def footprint(family: str, fields: dict[str, Any]) -> tuple[Any, Footprint]:
    config = build_config(get_family(family), fields)
    return config, get_part(family, "preflight").footprint(config)


@pytest.mark.parametrize("family", ["equilibrium", "nsa", "shared_moe", "spacing_mdn"])
def test_parameters_are_those_of_the_model_for_every_preset(family: str) -> None:
    for preset in get_family(family).presets:
        config = build_config(get_family(family), preset=preset)
        with torch.device("meta"):
            model = resolve(get_family(family).model)(config)
        counted = get_part(family, "preflight").footprint(config).parameters
        assert counted == sum(parameter.numel() for parameter in model.parameters()), preset


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ar_features": 4, "height_input": True},
        {"layout": "prefix", "n_slots": 3},
        {**SLOTS, "query_cuts": 2},
        {**SLOTS, "aux_mode": "diagonal"},
        {**SLOTS, "aux_mode": "mean"},
        {"head_bias": True},
        {**SLOTS, "readout": "weights", "query_cuts": 2},
        {**SLOTS, "readout": "weights", "aux_mode": "diagonal", "head_bias": True},
    ],
)
def test_parameters_of_spacing_models_are_counted_for_every_layout(fields: dict[str, Any]) -> None:
    config, counted = footprint("spacing_mdn", {**SPACING, **fields})
    assert counted.parameters == sum(parameter.numel() for parameter in SpacingModel(config).parameters())


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("fields", [MOE, {**MOE, **DENSE}], ids=["experts", "dense"])
def test_what_a_language_model_keeps_for_its_backward_pass(fields: dict[str, Any], bf16: bool) -> None:
    config, counted = footprint("shared_moe", fields)
    model = SharedMoE(config)

    def loss(batch: int) -> Tensor:
        ids = torch.randint(config.vocab_size, (batch, config.context + 1))
        return losses(model(ids[:, :-1]).logits, ids).mean()

    # Two thirds of what counts with the logits come after the forward pass.
    expected = (0.6 if bf16 else 1.0) * counted.activations + counted.logits / 3
    assert kept_by(model, loss, bf16) == pytest.approx(expected, rel=0.08 if bf16 else 0.01)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    "fields",
    [{"dropout": 0.0}, {}, {"layout": "prefix", "n_slots": 8}, SLOTS],
    ids=["bare", "dropout", "prefix", "postfix"],
)
def test_what_a_spacing_model_keeps_for_its_backward_pass(fields: dict[str, Any], bf16: bool) -> None:
    config, counted = footprint("spacing_mdn", {**SPACING, **fields})
    model = SpacingModel(config)

    def loss(batch: int) -> Tensor:
        predicted = model(torch.rand(batch, config.context, 1))
        return mixture_nll(predicted, torch.ones(predicted.mu.shape[:2])).mean()

    expected = (0.6 if bf16 else 1.0) * counted.activations
    assert kept_by(model, loss, bf16) == pytest.approx(expected, rel=0.15)


def kept_by(model: torch.nn.Module, loss: Callable[[int], Tensor], bf16: bool) -> float:
    """Bytes that a micro-batch of four keeps, without what is kept whatever the batch: copies of weights."""
    counts = []
    for batch in (4, 12):
        others = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor, kept: dict[int, int] = kept, others: set[int] = others) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in others:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16),
        ):
            value = loss(batch)  # holds on to what it keeps, so no address is used twice
        assert value.requires_grad
        counts.append(sum(kept.values()))
    return (counts[1] - counts[0]) / 2


JOB = """
import json, re, sys
import torch
from trainables.registry import build_config, get_family
from trainables.shared_moe.model import SharedMoE
from trainables.language.task import losses
from trainables.training.step import OptimStep, parameter_group

def train(fields):
    config = build_config(get_family("shared_moe"), fields)
    model = SharedMoE(config)
    groups = [parameter_group(model.parameters(), lr_scale=1.0, weight_decay=0.0)]
    optim = OptimStep(groups, lr=config.lr_at, device=torch.device("cpu"))
    ids = torch.randint(config.vocab_size, (config.batch_size, config.context + 1))
    for _ in range(2):
        optim.take(lambda index: (losses(model(ids[:, :-1]).logits, ids).mean(), {}))
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

torch.set_num_threads(1)
small, large = json.loads(sys.argv[1])
print(json.dumps([train(small), train(large)]))
"""


@pytest.mark.parametrize(
    "fields",
    [
        {**MOE, "width": 256, "d_ff": 1024, "vocab_size": 8192, "batch_size": 4, "accumulation": 1},
        {**MOE, "width": 128, "depth": 6, "d_ff": 256, "context": 256, "batch_size": 8, "accumulation": 1},
    ],
    ids=["parameters", "activations"],
)
def test_a_job_takes_about_the_memory_that_is_estimated(fields: dict[str, Any]) -> None:
    _, counted = footprint("shared_moe", fields)
    words = [sys.executable, "-c", JOB, json.dumps([MOE, fields])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    estimated = training_bytes(counted, bf16=False)
    assert 0.75 * estimated < after - before < 1.25 * estimated, (after - before, estimated)
    # The process itself.
    assert before < training_bytes(Footprint(0, 0), bf16=False, cpu=True) < GIB


def test_a_run_leaves_about_as_much_on_the_disk_as_is_estimated(first100k_dir: Path, tmp_path: Path) -> None:
    fields = {"width": 96, "depth": 2}
    variants = {name: {"preset": "tiny", "fields": {**fields, "lr": lr}} for name, lr in zip("abcd", LRS, strict=True)}
    plan = resolve_plan(
        {
            "name": "sized",
            "family": "spacing_mdn",
            "control": "a",
            "presets": ["b", "c", "d"],
            "configs": variants,
            "num_candidates": 3,
            "seeds": [1, 2],
            "eta": 3.0,
            "eval_every": 2,
            "save_every": 2,
            "diagnose": [],
            "scoring": {"band": 0.0, "extra_seeds": 0.0},
            "stages": [{"until_step": 4, "num_seeds": 1}, {"until_step": 8, "num_seeds": 2}],
        }
    )
    tune_rh.search(plan, runs_dir=tmp_path, data_dir=first100k_dir, runner="local")
    files = [path for path in (tmp_path / "sized" / "members").rglob("*") if path.is_file() and not path.is_symlink()]
    largest = max(sum(file.stat().st_size for file in folder.iterdir()) for folder in {file.parent for file in files})
    config = build_config(get_family("spacing_mdn"), fields, preset="tiny")
    each = checkpoint_bytes(get_part("spacing_mdn", "preflight").footprint(config))
    assert 0.8 * each < largest <= each
    total = sum(file.stat().st_size for file in files)
    assert 0.5 * run_bytes(plan, each) < total <= run_bytes(plan, each)
