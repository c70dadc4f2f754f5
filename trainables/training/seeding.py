"""Random numbers from a seed and a purpose, with a state that is saved and restored exactly.

Two kinds. `make_generator` gives a `torch.Generator` that its owner passes to every draw: use it wherever torch lets
a generator be passed (drawing windows, permuting slots). `RngStream` is for code that can only draw from torch's
global generator, which is what dropout does, fused attention's included: inside ``with stream:`` the global
generator is the stream's own, and on leaving the caller's state is back as it was. So a task never disturbs, and is
never disturbed by, the random numbers of other code, and its dropout masks go on bit for bit after a resume.

Not here: Python's and numpy's generators. Nothing in training may draw from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import TracebackType

import torch
from torch import Tensor


def derive_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed that depends on ``seed`` and on ``purpose``, so that two purposes never share a stream."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def make_generator(seed: int, purpose: str) -> torch.Generator:
    """A generator on the CPU: the same draws on every device, and a state that any machine can load."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose))


class RngStream:
    """A stream of torch's *global* random numbers on one device, entered as a context.

    Entering puts the stream's state into the global generators (the CPU's, and the device's where it is a GPU) and
    keeps what was there; leaving does the opposite. Not reentrant and not thread-safe, as the global generator is not.
    """

    def __init__(self, seed: int, purpose: str, device: torch.device) -> None:
        value = derive_seed(seed, purpose)
        self._device = device
        self._own: dict[str, Tensor] = {"cpu": torch.Generator().manual_seed(value).get_state()}
        if device.type == "cuda":
            self._own["cuda"] = torch.Generator(device).manual_seed(value).get_state()
        self._outer: dict[str, Tensor] | None = None

    def __enter__(self) -> RngStream:
        assert self._outer is None, "an RngStream cannot be entered twice"
        self._outer = self._swap(self._own)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._outer is not None
        self._own, self._outer = self._swap(self._outer), None

    def _swap(self, incoming: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outgoing = {"cpu": torch.get_rng_state()}
        torch.set_rng_state(incoming["cpu"])
        if self._device.type == "cuda":
            outgoing["cuda"] = torch.cuda.get_rng_state(self._device)
            torch.cuda.set_rng_state(incoming["cuda"], self._device)
        return outgoing

    def state_dict(self) -> dict[str, Tensor]:
        """The state of each generator, as byte tensors."""
        return {name: state.clone() for name, state in self._own.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from ``state``. A generator that ``state`` lacks (saved on a CPU, loaded on a GPU) keeps its own."""
        for name in self._own:
            if name in state:
                self._own[name] = state[name].cpu().clone()
