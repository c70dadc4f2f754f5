"""What the benchmark of the dispatch measures: memory by the closed form, loops that agree, a fair dense twin."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import bench_moe
from tests.trainables.shared_moe.configs import DENSE, tiny
from trainables.registry import build_config, get_family
from trainables.shared_moe.accounting import active_ffn, matmul_params, memory_per_token
from trainables.shared_moe.config import SharedMoEConfig
from trainables.shared_moe.dispatch import Experts
from trainables.shared_moe.model import SharedMoE

SIZES: dict[str, dict[str, Any]] = {
    "preset tiny": {},
    "one expert a token": {"top_k": 1, "gate": "prob"},
    "sigmoid": {"gate": "sigmoid", "top_k": 3},
    "dense": DENSE,
    "indexed, tied": {"blocks": "indexed", "tied": True, "depth_embedding": False},
    "many experts": {"num_experts": 40, "top_k": 3},
    "wide": {"d_ff": 96},
}


@pytest.mark.parametrize("size", SIZES)
def test_the_closed_form_of_memory_is_what_autograd_keeps(size: str) -> None:
    config = tiny(**SIZES[size], depth=3)
    assert memory_per_token(config) == pytest.approx(bench_moe.kept_per_token(config, batch=8), rel=0.02)


def test_the_benchmarks_loops_compute_what_the_dispatch_computes() -> None:
    torch.manual_seed(1)
    config = tiny(num_experts=6)
    ids = torch.randint(config.vocab_size, (3, config.context + 1))
    model = SharedMoE(config)
    losses = []
    for kind in (Experts, bench_moe.Loop, bench_moe.IndexedLoop):
        bench_moe.with_experts(model, kind)
        losses.append(bench_moe.loss_of(model, ids)[0].item())
    assert losses[1:] == pytest.approx(losses[:1] * 2, abs=1e-6)


@pytest.mark.parametrize("preset", ["half-notes", "control", "cpu-tiny"])
def test_the_dense_twin_has_the_same_active_width(preset: str) -> None:
    config = build_config(get_family("shared_moe"), preset=preset)
    assert isinstance(config, SharedMoEConfig)
    twin = bench_moe.dense_like(config)
    assert active_ffn(twin) == active_ffn(config)
    assert matmul_params(config) - matmul_params(twin) == config.depth * config.width * config.num_experts


def test_the_benchmark_of_a_gpu_takes_any_device() -> None:
    section = bench_moe.on_a_gpu(tiny(), batch=2, rounds=1, device="cpu")
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows[2:]] == [bench_moe.DENSE, bench_moe.DISPATCH]
