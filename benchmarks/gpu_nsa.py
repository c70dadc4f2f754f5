"""All checks and timings of sparse attention that need a GPU, in one short run that prints one table.

What is checked: the kernels against the torch path in float32, values and gradients; the same bits twice; finite values
at every length in bfloat16; prefill and decoding against one pass. What is timed: forward, and forward with backward,
of one layer of preset ``prod-32h`` against its dense twin, whose attention is fused.

    python -m benchmarks.gpu_nsa
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.bench_nsa import config_of
from benchmarks.results import hardware, record, table
from trainables.nsa import branches
from trainables.nsa.attention import DenseAttention, SparseAttention
from trainables.nsa.model import attention_of

TITLE = "Sparse attention of nsa on a GPU"
_LENGTHS = (8192, 16_384, 32_768, 65_536)
_REPEATS = 5


def layer_of(kind: str, dtype: torch.dtype) -> SparseAttention | DenseAttention:
    """One layer's attention on the GPU; the same weights for the same kind."""
    torch.manual_seed(0)
    return attention_of(config_of("prod-32h", attn=kind)).cuda().to(dtype)


def milliseconds(work: Callable[[], object]) -> float:
    """The median of a few runs, after one that chooses kernels."""
    work()
    taken = []
    for _ in range(_REPEATS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(1e3 * (time.perf_counter() - began))
    return sorted(taken)[_REPEATS // 2]


def backward(layer: SparseAttention | DenseAttention, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of all parameters."""
    output, _ = layer(x)
    return [output, *torch.autograd.grad(output.float().square().mean(), list(layer.parameters()))]


def agreement() -> list[tuple[str, str]]:
    """How far the kernels are from the torch path in float32, as a share of its largest value; whether they repeat."""
    rows = []
    x = torch.randn(2, 1500, 2048, device="cuda")
    layer = layer_of("nsa", torch.float32)
    taken = branches.takes_kernel
    branches.takes_kernel = lambda queries, sizes: False
    exact = backward(layer, x)
    branches.takes_kernel = taken
    for dtype in (torch.float32, torch.bfloat16):
        layer = layer_of("nsa", dtype)
        made, again = backward(layer, x.to(dtype)), backward(layer, x.to(dtype))
        far = max(float((a.float() - b).abs().max() / b.abs().max()) for a, b in zip(made, exact, strict=True))
        same = all(torch.equal(a, b) for a, b in zip(made, again, strict=True))
        rows.append((f"kernel in {dtype}: largest difference, repeats", f"{far:.1e}, {'yes' if same else 'no'}"))
    with torch.inference_mode():
        layer = layer_of("nsa", torch.float32)
        whole, cache = layer(x)[0], layer.new_cache(2, 1500)
        cuts = [(0, 1200), *((t, t + 1) for t in range(1200, 1500))]
        parts = [layer(x[:, first:last], cache)[0] for first, last in cuts]  # type: ignore[arg-type]
        far = float((torch.cat(parts, dim=1) - whole).abs().max() / whole.abs().max())
    return [*rows, ("prefill and decoding against one pass", f"{far:.1e}")]


def forward(layer: SparseAttention | DenseAttention, x: Tensor) -> list[Tensor]:
    """The output alone."""
    with torch.no_grad():
        return [layer(x)[0]]


def timings() -> list[tuple[str, str]]:
    """Milliseconds of sparse and dense attention at each length; whether what sparse attention gives is finite."""
    rows = []
    layers = [layer_of(kind, torch.bfloat16) for kind in ("nsa", "dense")]
    for length in _LENGTHS:
        x = torch.randn(1, length, 2048, device="cuda", dtype=torch.bfloat16)
        for name, work in (("forward", forward), ("forward and backward", backward)):
            mine, theirs = (milliseconds(partial(work, layer, x)) for layer in layers)
            found = f"{mine:.1f}, {theirs:.1f}, {theirs / mine:.2f}"
            rows.append((f"{length:,} tokens, {name}: sparse, dense, ratio", found))
        finite = all(bool(part.isfinite().all()) for part in backward(layers[0], x))
        rows.append((f"{length:,} tokens: finite", "yes" if finite else "no"))
    return rows


def main() -> int:
    """Everything, where there is a GPU."""
    if not torch.cuda.is_available():
        print("No GPU: nothing was measured.")
        return 1
    rows = [*agreement(), *timings()]
    record(TITLE, "python -m benchmarks.gpu_nsa", hardware("torch"), table(("what", "found"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
