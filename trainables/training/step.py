"""One optimiser step, for every family: accumulation, mixed precision, clipping, schedule, non-finite values.

A non-finite loss or gradient is a result, not an error: the weights and the optimiser stay as they were, the step
counts as taken (schedules go on), and the numbers are returned as they are, for the member to be judged by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainables.training.fields import Amp

MicroLoss = Callable[[int], tuple[Tensor, Mapping[str, Tensor]]]
"""Given the index of a micro-batch: its mean loss, and named parts of it (scalars) to report."""


def amp_enabled(amp: Amp, device: torch.device) -> bool:
    """Whether to autocast to bfloat16: ``auto`` does on GPUs that compute in it, and never on a CPU."""
    if amp == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return amp == "bf16"


def parameter_group(parameters: Iterable[nn.Parameter], *, lr_scale: float, weight_decay: float) -> dict[str, Any]:
    """A group for `OptimStep`: ``lr_scale`` multiplies the scheduled learning rate."""
    return {"params": list(parameters), "lr_scale": lr_scale, "weight_decay": weight_decay}


def parameter_groups(
    model: nn.Module, matrices: Iterable[nn.Parameter], *, weight_decay: float, apart: Iterable[nn.Parameter] = ()
) -> list[dict[str, Any]]:
    """Groups of a model: ``matrices`` decay, what else it has does not; ``apart`` is in neither."""
    matrices = list(matrices)
    grouped = {id(parameter) for parameter in (*matrices, *apart)}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in grouped]
    return [
        parameter_group(matrices, lr_scale=1.0, weight_decay=weight_decay),
        parameter_group(rest, lr_scale=1.0, weight_decay=0.0),
    ]


class OptimStep:
    """AdamW on groups of parameters, one step at a time, with a state that resumes bit for bit.

    Args:
        groups: from `parameter_group`; empty groups are left out.
        lr: learning rate as a pure function of the step about to be taken, from 0.
        clip: bound on the norm of the whole gradient.
        accumulation: micro-batches per step. Gradients are averaged, so equal micro-batches give one big batch.
        amp: see `amp_enabled`.
        betas: decay rates of AdamW's two moments.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: Callable[[int], float],
        device: torch.device,
        clip: float = 1.0,
        accumulation: int = 1,
        amp: Amp = "auto",
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        groups = [group for group in groups if group["params"]]
        self.step = 0
        self.skipped = 0
        self._lr = lr
        self._clip = clip
        self._accumulation = accumulation
        self._amp = amp_enabled(amp, device)
        self._device_type = device.type
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        # Fused: one kernel for all parameters. On a CPU it is what keeps small models from waiting for Python.
        self._optimizer = torch.optim.AdamW(groups, lr=lr(0), betas=betas, fused=True)

    def autocast(self) -> torch.autocast:
        """The precision of training, for evaluation to use as well."""
        return torch.autocast(self._device_type, dtype=torch.bfloat16, enabled=self._amp)

    def take(self, micro_loss: MicroLoss) -> dict[str, float]:
        """Take one step. Returns ``train_loss``, ``grad_norm`` (before clipping), ``lr`` and the loss's named parts.

        Means over micro-batches. Afterwards gradients are freed.
        """
        lr = self._lr(self.step)
        total, parts = self._backward(micro_loss)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # The only wait for the device in a step: everything that is reported comes over in one copy, and in float64,
        # which holds losses and norms of any type as they are.
        names = ("train_loss", "grad_norm", *parts)
        values = torch.stack([value.detach().double() for value in (total, norm, *parts.values())]).tolist()
        report = dict(zip(names, values, strict=True))
        if math.isfinite(report["train_loss"]) and math.isfinite(report["grad_norm"]):
            self._update(norm, clip=report["grad_norm"] > self._clip, lr=lr)
        else:
            self.skipped += 1
        for parameter in self._parameters:
            parameter.grad = None
        self.step += 1
        report["lr"] = lr
        return report

    def _backward(self, micro_loss: MicroLoss) -> tuple[Tensor, dict[str, Tensor]]:
        """Accumulate gradients; returns the mean loss and its mean parts."""
        share = 1.0 / self._accumulation
        total: Tensor | None = None
        sums: dict[str, Tensor] = {}
        for index in range(self._accumulation):
            with self.autocast():
                loss, parts = micro_loss(index)
            if self._accumulation > 1:
                loss = loss * share
                parts = {name: value.detach() * share for name, value in parts.items()}
            loss.backward()  # type: ignore[no-untyped-call]
            total = loss.detach() if total is None else total + loss.detach()
            for name, value in parts.items():
                sums[name] = sums[name] + value if name in sums else value
        assert total is not None
        return total, sums

    def _update(self, norm: Tensor, *, clip: bool, lr: float) -> None:
        if clip:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._clip, norm)
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Steps taken, steps skipped, the optimiser's state. Tensors are live: the caller copies what it keeps."""
        return {"step": self.step, "skipped": self.skipped, "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``; copies its tensors."""
        self.step = int(state["step"])
        self.skipped = int(state.get("skipped", 0))
        self._optimizer.load_state_dict(state["optimizer"])


def snapshot(value: Any) -> Any:
    """A deep copy of nested dicts, lists and tuples, with tensors cloned: later steps leave it as it is."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(item) for item in value)
    return value
