"""What does the next token cost, by the length of what was read, against dense attention with a cache?

What it is: milliseconds of one layer's attention on this machine, for one token after so many others, sparse and
dense at the same sizes; random vectors, since only their number matters.
What it is not: a benchmark. Few repetitions are timed, and whatever else the machine does is in them.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, answer, diagnostic
from analysis.nsa.looked import layers_of
from trainables.nsa.attention import DenseAttention, SparseAttention

_LENGTHS = (256, 1024, 4096)
_TIMES = 5


@diagnostic("cost of the next token, by length")
def decode_cost(subject: Any) -> Finding:
    """Return a finding with values ``sparse_ms_at_<length>`` and ``dense_ms_at_<length>``, medians of milliseconds of
    one layer, and ``dense_over_sparse_at_4096``."""
    layer = layers_of(subject)[0]
    if subject.task.device.type != "cpu":
        raise NoEvidence("The cost is measured on a CPU only.")
    width = layer.out.in_features
    dense = DenseAttention(width, layer.n_heads, layer.groups).to(layer.out.weight)
    costs: dict[str, list[float]] = {"sparse": [], "dense": []}
    for length in _LENGTHS:
        costs["sparse"].append(milliseconds(layer, length))
        costs["dense"].append(milliseconds(dense, length))
    return judge(costs["sparse"], costs["dense"])


def milliseconds(layer: SparseAttention | DenseAttention, length: int) -> float:
    """The median over a few tokens after ``length`` others."""
    generator = torch.Generator().manual_seed(length)
    x = torch.randn(1, length + _TIMES, layer.out.in_features, generator=generator).to(layer.out.weight)
    cache = layer.new_cache(1, length + _TIMES)
    taken = []
    with torch.inference_mode():
        layer(x[:, :length], cache)
        for place in range(length, length + _TIMES):
            began = time.perf_counter()
            layer(x[:, place : place + 1], cache)
            taken.append(1e3 * (time.perf_counter() - began))
    return sorted(taken)[_TIMES // 2]


def judge(sparse: list[float], dense: list[float]) -> Finding:
    """The finding on milliseconds at each length; it only reports."""
    values: dict[str, Value] = {f"sparse_ms_at_{n}": ms for n, ms in zip(_LENGTHS, sparse, strict=True)}
    values |= {f"dense_ms_at_{n}": ms for n, ms in zip(_LENGTHS, dense, strict=True)}
    ratio = dense[-1] / sparse[-1]
    values[f"dense_over_sparse_at_{_LENGTHS[-1]}"] = ratio
    summary = (
        f"After {_LENGTHS[-1]:,} tokens the next one costs a layer's attention {sparse[-1]:.2f} ms, dense "
        f"{dense[-1]:.2f} ms: {'sparse' if ratio > 1.0 else 'dense'} is faster on this machine at that length."
    )
    plot = Plot(
        "Cost of the next token in one layer",
        "tokens before",
        "milliseconds",
        series=(Series("sparse", _LENGTHS, tuple(sparse)), Series("dense", _LENGTHS, tuple(dense))),
        log_x=True,
        log_y=True,
    )
    return answer("pass", summary, values, {}, (plot,))
