"""Sparse attention against its slow form: outputs, every gradient, lists, for both ways to fetch selected blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.reference import nsa as reference
from tests.trainables.nsa.layers import CONFIGS, sparse_layer
from trainables.nsa.attention import SparseAttention

WAYS = ("gather", "union")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def lists_of(layer: SparseAttention, x: Tensor) -> reference.Lists:
    """The selected blocks of each query, ascending."""
    _, seen = layer(x, counted=True)
    assert seen is not None
    return [[[sorted(b for b in row if b >= 0) for row in group] for group in s] for s in seen.reads.blocks.tolist()]


def gradients(output: Tensor, layer: SparseAttention, x: Tensor) -> dict[str, Tensor]:
    """Of a fixed function of the output, by the name of the parameter, the input among them."""
    weights = torch.linspace(-1.0, 2.0, output.numel(), dtype=torch.float64).view_as(output).cos()
    named = {"x": x, **dict(layer.named_parameters())}
    found = torch.autograd.grad((output * weights).sum(), list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(value) if grad is None else grad
        for (name, value), grad in zip(named.items(), found, strict=True)
    }


def check(layer: SparseAttention, x: Tensor) -> None:
    """All ways agree with the slow form to 1e-9."""
    slow = reference.slow_attention(layer, x)
    exact = gradients(slow.output, layer, x)
    for way in WAYS:
        layer.selection = way  # type: ignore[assignment]
        output, _ = layer(x)
        torch.testing.assert_close(output, slow.output, atol=1e-9, rtol=0)
        for name, gradient in gradients(output, layer, x).items():
            torch.testing.assert_close(gradient, exact[name], atol=1e-9, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
        assert lists_of(layer, x) == slow.lists


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("time", [1, 7, 8, 33, 77])
def test_the_ways_to_select_agree_with_the_slow_form(name: str, time: int) -> None:
    torch.manual_seed(time)
    layer = sparse_layer(**CONFIGS[name])
    x = torch.randn(1 if time > 33 else 2, time, layer.out.in_features, dtype=torch.float64, requires_grad=True)
    check(layer, x)


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    """Any sizes that fit together."""
    stride = draw(st.integers(1, 4))
    block = stride * draw(st.integers(1, 3))
    select = stride * draw(st.integers(block // stride, 5))
    local = draw(st.integers(1, 2))
    sizes = (block, stride, select, local + 1 + draw(st.integers(0, 3)), local, draw(st.integers(1, 12)))
    groups = draw(st.integers(1, 2))
    return {
        "sizes": sizes,
        "groups": groups,
        "n_heads": groups * draw(st.integers(1, 3)),
        "dim": 2 * draw(st.integers(1, 2)),
        "phi": draw(st.sampled_from(["mlp", "mean"])),
        "gate": draw(st.sampled_from(["sigmoid", "softmax"])),
    }


@settings(max_examples=25, deadline=None)
@given(shape=shapes(), time=st.integers(1, 40), seed=st.integers(0, 9))
def test_whatever_the_shapes(shape: dict[str, Any], time: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = sparse_layer(**shape)
    check(layer, torch.randn(1, time, layer.out.in_features, dtype=torch.float64, requires_grad=True))


def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    layer = sparse_layer()
    x = torch.randn(1, 50, 16, dtype=torch.float64, requires_grad=True)
    slow = reference.slow_attention(layer, x)
    for size in (1, 7, 16):
        monkeypatch.setattr("trainables.nsa.attention._TILE", 2 * size + 1)
        monkeypatch.setattr("trainables.nsa.branches._PART", size)
        monkeypatch.setattr("trainables.nsa.branches._LEAST_PART", size)
        for way in WAYS:
            layer.selection = way  # type: ignore[assignment]
            torch.testing.assert_close(layer(x)[0], slow.output, atol=1e-9, rtol=0)
