"""What native sparse attention costs beside its dense twin, in training and for the next token.

Training: whole models of preset ``cpu-tiny``'s size, forward and backward, at several lengths; variants take turns, and
time is CPU time on one thread. Decoding: the attention of one layer of preset ``prod-125m``, after so many tokens that
are in its cache already; these are random, since only their number matters.

    python -m benchmarks.bench_nsa [--lengths 128,512,...] [--rounds N]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.results import hardware, record, table
from benchmarks.turns import Variant, seconds, speed
from trainables.nsa.attention import DenseAttention, SparseAttention
from trainables.nsa.cache import DenseCache, SparseCache
from trainables.nsa.config import NSAConfig
from trainables.nsa.model import NSAModel, attention_of
from trainables.registry import build_config, get_family
from trainables.worker.allocator import keep_freed_memory

TITLE = "Sparse attention of nsa"
LENGTHS = (128, 512, 2048, 8192)
DECODED = (2048, 8192, 32_768, 65_536)
_TOKENS = 2048
"""In a step at least."""
_PACKAGE = "native_sparse_attention_pytorch"
DENSE, AUTO = "dense twin (SDPA)", "sparse"
PEER = "native-sparse-attention-pytorch"


def config_of(preset: str, **fields: Any) -> NSAConfig:
    """A preset of the family with other fields."""
    config = build_config(get_family("nsa"), fields, preset=preset)
    assert isinstance(config, NSAConfig)
    return config


class Peer(nn.Module):
    """The attention of the package, at the sizes of a config."""

    def __init__(self, config: NSAConfig) -> None:
        super().__init__()
        from native_sparse_attention_pytorch import SparseAttention as Theirs

        self.inner = Theirs(
            dim=config.width,
            dim_head=config.width // config.n_heads,
            heads=config.n_heads,
            kv_heads=config.kv_groups,
            sliding_window_size=config.window,
            compress_block_size=config.block,
            compress_block_sliding_stride=config.stride,
            selection_block_size=config.select_block,
            num_selected_blocks=config.num_select - config.sparsity.num_forced,
            causal=True,
            use_triton_kernel=False,
            norm=False,
        )

    def forward(self, x: Tensor, cache: None = None, *, counted: bool = False) -> tuple[Tensor, None]:
        """As `SparseAttention.forward`, without a cache."""
        return self.inner(x), None


def step_of(name: str, length: int, **fields: Any) -> Variant:
    """Forward and backward of a model on random tokens."""
    torch.manual_seed(0)
    config = config_of("cpu-tiny", context=length, **fields)
    model = NSAModel(config)
    if name == PEER:
        for block in model.layers():
            block.attention = Peer(config)  # type: ignore[assignment]
    ids = torch.randint(config.vocab_size, (max(1, _TOKENS // length), length + 1))

    def step() -> None:
        logits = model(ids[:, :-1]).logits
        F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
        model.zero_grad()

    return Variant(name, (step,), ids[:, 1:].numel())


def trained(length: int, rounds: int, peer: bool) -> Mapping[str, list[float]]:
    """Thousands of tokens a second, and the ratio to the dense twin, by variant."""
    variants = [
        step_of(DENSE, length, attn="dense"),
        step_of(AUTO, length),
        step_of(f"{AUTO}, gather", length, selection="gather"),
        step_of(f"{AUTO}, union", length, selection="union"),
    ]
    if peer:
        variants.append(step_of(PEER, length))
    return speed(variants, seconds(variants, rounds), 0)


def filled(layer: SparseAttention | DenseAttention, length: int) -> SparseCache | DenseCache:
    """A cache with random vectors of so many tokens, and room for a few more."""
    cache = layer.new_cache(1, length + 64)
    cache.length = length
    for name, value in vars(cache).items():
        if isinstance(value, Tensor) and value.numel():
            getattr(cache, name).normal_()
    if isinstance(cache, SparseCache):
        sizes = layer.sparsity  # type: ignore[union-attr]
        raw = length - sizes.num_compressed(length) * sizes.stride
        cache._tail = torch.randn(2, 1, layer.groups, raw, layer.dim)
    return cache


@dataclass(frozen=True)
class Decoded:
    """The next token in one layer: milliseconds of all of it, and of what it does between its projections."""

    layer: float
    attention: float
    cache: float
    """MiB."""


class _Linear:
    """The time that a layer's projections take, by hooks around them."""

    def __init__(self, layer: nn.Module) -> None:
        self.taken = self._began = 0.0
        for part in (layer.qkv, layer.out):
            assert isinstance(part, nn.Module)
            part.register_forward_pre_hook(self._begin)
            part.register_forward_hook(self._end)

    def _begin(self, *_: object) -> None:
        self._began = time.process_time()

    def _end(self, *_: object) -> None:
        self.taken += time.process_time() - self._began


def decoded(length: int, rounds: int) -> tuple[Decoded, Decoded]:
    """What the next token costs, sparse and dense."""
    torch.manual_seed(0)
    config = config_of("prod-125m")
    layers = attention_of(config), DenseAttention(config.width, config.n_heads, config.kv_groups)
    linear = [_Linear(layer) for layer in layers]
    taken: list[list[tuple[float, float]]] = [[], []]
    caches = [filled(layer, length) for layer in layers]
    sizes = [_mib(cache) for cache in caches]
    with torch.inference_mode():
        for i in range(rounds + 1):
            x = torch.randn(1, 1, config.width)
            for layer, cache, projections, times in zip(layers, caches, linear, taken, strict=True):
                projections.taken, began = 0.0, time.process_time()
                layer(x, cache)  # type: ignore[arg-type]
                if i:  # in the first, memory is touched
                    whole = 1e3 * (time.process_time() - began)
                    times.append((whole, whole - 1e3 * projections.taken))
    sparse, dense = (
        Decoded(statistics.median(whole), statistics.median(inner), size)
        for (whole, inner), size in zip((zip(*times, strict=True) for times in taken), sizes, strict=True)
    )
    return sparse, dense


def _mib(cache: SparseCache | DenseCache) -> float:
    tensors = [value for value in vars(cache).values() if isinstance(value, Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors) / 2**20


def training_table(by_length: Mapping[int, Mapping[str, list[float]]]) -> str:
    """A row a variant: thousands of tokens a second and the ratio to the dense twin, by length."""
    header = ["forward and backward", *(head for n in by_length for head in (f"T = {n:,}", "ratio"))]
    names = next(iter(by_length.values()))
    rows = []
    for name in names:
        cells = [
            [f"{value:.2f}" for value in found[name]] if name in found else ("", "") for found in by_length.values()
        ]
        rows.append((name, *(cell for pair in cells for cell in pair)))
    return table(header, rows)


def decoding_table(lengths: Sequence[int], rounds: int) -> str:
    """A row a length."""
    rows = []
    for length in lengths:
        sparse, dense = decoded(length, rounds)
        pairs = ((sparse.layer, dense.layer), (sparse.attention, dense.attention))
        cells = [cell for mine, theirs in pairs for cell in (f"{mine:.2f}", f"{theirs:.2f}", f"{theirs / mine:.1f}")]
        rows.append((f"{length:,}", *cells, f"{sparse.cache:.1f}", f"{dense.cache:.1f}"))
    head = ("tokens before", "layer: sparse, ms", "dense", "ratio", "without projections: sparse, ms", "dense", "ratio")
    return table([*head, "sparse cache, MiB", "dense cache, MiB"], rows)


def main() -> int:
    """Measure on one thread of the CPU."""
    parser = argparse.ArgumentParser(description="What native sparse attention costs beside its dense twin.")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="of training sequences")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-to", type=int, default=2048, help="longest sequence that the package is given")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    there = importlib.util.find_spec(_PACKAGE) is not None
    lengths = [int(length) for length in arguments.lengths.split(",")]
    by_length = {n: trained(n, arguments.rounds, there and n <= arguments.peer_to) for n in lengths}
    peer = f" {PEER} was given up to {arguments.peer_to:,} tokens." if there else f" {PEER} was not installed."
    config = config_of("cpu-tiny")
    body = (
        f"Thousands of tokens per second of CPU time on one thread, and the ratio to the dense twin: width "
        f"{config.width}, depth {config.depth}, {config.n_heads} heads in {config.kv_groups} groups, blocks of "
        f"{config.block} each {config.stride}, {config.num_select} of {config.select_block} selected, window "
        f"{config.window}; {_TOKENS:,} tokens a step or one sequence; median of {arguments.rounds} rounds.{peer}\n\n"
        f"{training_table(by_length)}\n\nThe next token: one attention layer of preset `prod-125m` in float32, one "
        f"thread, median of {4 * arguments.rounds}, with and without the projections of its input and output; what its "
        f"cache holds.\n\n"
        f"{decoding_table(DECODED, 4 * arguments.rounds)}"
    )
    record(TITLE, "python -m benchmarks.bench_nsa", hardware("torch"), body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
