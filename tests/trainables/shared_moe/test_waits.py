"""A training step waits for the device once, for its report: by operators, by tensors without values, and on CUDA."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainables.shared_moe.configs import VARIANTS, tiny
from tests.trainables.shared_moe.conftest import MakeTask
from trainables.shared_moe.model import SharedMoE

WAITS = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "unique", "bincount", "equal")


class Waits(TorchDispatchMode):
    """Notes the operators whose result or shape hangs on values, for which a host has to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.number = 0

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.number += 1
        name = func.name().removeprefix("aten::").partition(".")[0].lstrip("_")
        waits = any(name.startswith(stem.lstrip("_")) for stem in WAITS)
        masks = name.startswith("index") and any(
            part is not None and part.dtype in (torch.bool, torch.uint8) for part in _indices(args)
        )
        if waits or masks:
            self.seen.append(func.name())
        return func(*args, **(kwargs or {}))


def _indices(args: tuple[Any, ...]) -> list[Any]:
    return [part for argument in args if isinstance(argument, list | tuple) for part in argument]


def loss_of(model: SharedMoE, ids: Tensor) -> Tensor:
    output = model(ids[:, :-1])
    loss = F.cross_entropy(output.logits.flatten(0, 1).float(), ids[:, 1:].flatten())
    if output.routing is not None:
        loss = loss + 0.01 * output.routing.aux_loss() + 0.001 * output.routing.z_loss()
    return loss


def test_the_watch_sees_what_waits() -> None:
    with Waits() as watch:
        x = torch.arange(4.0)
        for waits in (lambda: x[x > 1.0], lambda: x.max().item(), lambda: x.nonzero(), lambda: torch.unique(x)):
            before = len(watch.seen)
            waits()
            assert len(watch.seen) > before
        before = len(watch.seen)
        x[torch.tensor([0, 1])].sum().exp()
        assert len(watch.seen) == before


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_loss_and_its_gradient_need_no_value_on_the_host(variant: str) -> None:
    """On tensors that have shapes and no values, whatever asks for a value fails."""
    with FakeTensorMode():
        model = SharedMoE(tiny(**VARIANTS[variant]))
        ids = torch.randint(model.config.vocab_size, (4, model.config.context + 1))
        with pytest.raises(DataDependentOutputException):
            ids.max().item()
        with torch.autocast("cpu", dtype=torch.bfloat16):  # without values, grouped products are in bfloat16 or none
            loss = loss_of(model, ids)
        loss.backward()
    assert isinstance(loss, FakeTensor)
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


def test_a_step_copies_its_report_from_the_device_once_and_waits_for_nothing_else(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(accumulation=2)
    task.step()
    copies = []
    plain = Tensor.tolist

    def counted(tensor: Tensor) -> Any:
        if tensor.is_floating_point():  # which windows come next is a list of integers, and never was on a device
            copies.append(tuple(tensor.shape))
        return plain(tensor)

    monkeypatch.setattr(Tensor, "tolist", counted)
    with Waits() as watch:
        report = task.step()
    assert watch.seen == []
    assert watch.number > 500
    assert copies == [(5,)]
    assert {"train_loss", "grad_norm", "train_ce", "train_aux", "train_z"} <= report.keys()


@pytest.mark.gpu
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_wait_on_a_gpu(variant: str) -> None:
    """In bfloat16, the precision of training there; CUDA itself reports a wait as an error."""
    model = SharedMoE(tiny(**VARIANTS[variant], width=32, d_ff=32)).cuda()
    ids = torch.randint(model.config.vocab_size, (4, model.config.context + 1), device="cuda")

    def once() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = loss_of(model, ids)
        loss.backward()

    once()  # kernels and workspaces are made
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        once()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
