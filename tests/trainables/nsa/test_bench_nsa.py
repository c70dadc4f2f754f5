"""What the benchmark of sparse attention measures: every variant at every length, caches of the length that it says."""

from __future__ import annotations

import torch

from benchmarks import bench_nsa
from benchmarks.bench_nsa import AUTO, DENSE
from trainables.nsa.cache import SparseCache
from trainables.nsa.model import attention_of


def test_every_variant_has_a_row() -> None:
    torch.set_num_threads(1)
    found = {n: bench_nsa.trained(n, 1, peer=False) for n in (32, 64)}
    rows = bench_nsa.training_table(found).splitlines()[2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [
        DENSE,
        AUTO,
        f"{AUTO}, gather",
        f"{AUTO}, union",
    ]
    assert all(found[n][DENSE][1] == 1.0 for n in found)


def test_a_filled_cache_is_as_long_as_it_says() -> None:
    config = bench_nsa.config_of("cpu-tiny")
    layer = attention_of(config)
    for length in (5, 16, 100, 517):
        kept = bench_nsa.filled(layer, length)
        assert isinstance(kept, SparseCache)
        with torch.inference_mode():
            for _ in range(20):
                _, seen = layer(torch.randn(1, 1, config.width), kept, counted=True)
                assert seen is not None
                expected = torch.tensor(config.sparsity.reads(kept.length)).view(3, 1, 1, 1)
                assert torch.equal(seen.reads.counts, expected.expand_as(seen.reads.counts))
