"""The kernels of the selected branch against the torch path, values and gradients; on a GPU alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainables.nsa import branches
from trainables.nsa.branches import gathered, takes_kernel
from trainables.nsa.selection import choose_blocks
from trainables.nsa.sparsity import Sparsity

pytestmark = pytest.mark.gpu

SIZES = Sparsity(16, 8, 16, 4, 2, 32)


def drawn(head: int, time: int, dtype: torch.dtype, sizes: Sparsity = SIZES) -> tuple[list[Tensor], Tensor]:
    """Queries, keys, values that gradients reach; and lists."""
    torch.manual_seed(time)
    blocks = sizes.num_blocks(time)
    shapes = [(2, 2, head, time, 32), *((2, 2, blocks * sizes.select_block, 32),) * 2]
    parts = [torch.randn(shape, device="cuda", dtype=dtype).mul_(0.5).requires_grad_() for shape in shapes]
    scores = torch.rand(2, 2, time, blocks, device="cuda")
    return parts, choose_blocks(scores, torch.arange(time, device="cuda"), sizes)


def results(parts: list[Tensor], lists: Tensor, sizes: Sparsity = SIZES) -> list[Tensor]:
    output, _ = gathered(parts[0], lists, 0, (parts[1], parts[2]), sizes)
    weights = torch.linspace(-1.0, 2.0, output.numel(), device="cuda").view_as(output).cos()
    return [output, *torch.autograd.grad((output.float() * weights).sum(), parts)]


@pytest.mark.parametrize("head", [1, 6, 16])
@pytest.mark.parametrize("time", [1, 40, 130])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 2e-2)])
def test_the_kernel_is_the_torch_path_in_float32(
    head: int, time: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, lists = drawn(head, time, dtype)
    assert takes_kernel(parts[0], SIZES)
    made = results(parts, lists)
    again = results(parts, lists)
    monkeypatch.setattr(branches, "takes_kernel", lambda queries, sizes: False)
    exact = results([part.detach().float().requires_grad_() for part in parts], lists)
    for one, other, right in zip(made, again, exact, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one.float(), right, atol=tolerance, rtol=tolerance)


def test_shapes_that_the_kernel_does_not_take_go_the_other_way() -> None:
    odd = Sparsity(8, 4, 24, 4, 2, 32)
    parts, lists = drawn(4, 60, torch.float32, odd)
    assert not takes_kernel(parts[0], odd)
    assert all(part.isfinite().all() for part in results(parts, lists, odd))
