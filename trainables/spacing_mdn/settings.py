"""Many settings of the slots over the same windows, for about the price of one.

In layout ``postfix`` data never sees slots, so keys and values of the data are the same under every `SlotControl`. They
are computed once and kept as long as the sampled windows are; a further setting then costs the slots' own share, about
one part in thirty at 256 spacings and 8 slots. Float32 throughout: autocast is not entered. The modules are those of
`model.SpacingModel`, and a test holds both to the same numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from trainables.spacing_mdn.blocks import Block
from trainables.spacing_mdn.loss import mixture_nll
from trainables.spacing_mdn.model import Prediction, SpacingModel, _normalise, cut_positions
from trainables.spacing_mdn.sample import Sample, joined
from trainables.spacing_mdn.slots import SlotControl

_MAX_KEPT_BYTES = 3 * 2**29
"""Keys and values beyond this (1.5 GiB) are computed again at every call."""
_MAX_SLOT_TOKENS = 2**16
"""Settings x slots x windows that `affordable` allows, about 20 seconds of one CPU core at a width of 256, depth 6."""
_FEWEST = 32
_BATCH = 32  # windows
_TOKENS = 128  # slots of all settings together that go through a block at once, for each window


class _SharedData:
    """The data's side of a ``postfix`` model over one batch of windows: keys and values for the slots of any setting.

    The weights must not change while it is in use.
    """

    def __init__(self, model: SpacingModel, inputs: Float[Tensor, "batch context channels"]) -> None:
        config = model.config
        self._model = model
        self._center: Tensor | float = 1.0
        self._scale: Tensor | float = 1.0
        if config.block_norm:
            inputs, self._center, self._scale = _normalise(inputs)
        cuts = [cut - 1 for cut in cut_positions(config)]
        self._guess = inputs[:, cuts, 2] if config.ar_features else None
        self._memory: list[tuple[Tensor, Tensor]] = []  # of each block, keys and values by head
        with torch.no_grad():
            x = model._embed(inputs)
            for block in model.blocks:
                assert isinstance(block, Block)
                both = F.linear(block.attention_norm(x), block.qkv.weight[config.width :])
                key, value = (block.heads(part).contiguous() for part in both.chunk(2, dim=-1))
                self._memory.append((key, value))
                if block is not model.blocks[-1]:
                    x = block(x)

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        return sum(key.nbytes + value.nbytes for key, value in self._memory)

    @torch.no_grad()
    def predict(self, controls: Sequence[SlotControl]) -> list[Prediction]:
        """What the model says under each setting."""
        number = len(self._memory[0][0])
        step = max(1, _TOKENS // (self._model.config.n_slots * self._model.config.query_cuts))
        predictions = []
        for start in range(0, len(controls), step):
            some = controls[start : start + step]
            vectors = torch.stack([self._model.slot_vectors(control) for control in some]).expand(number, -1, -1, -1)
            keep = torch.stack([self._keep(control, number) for control in some], dim=1)
            states = self._run(vectors, keep)
            predictions += [self._read(states[:, index], control) for index, control in enumerate(some)]
        return predictions

    def gradients(
        self, targets: Float[Tensor, "batch predictions"], control: SlotControl
    ) -> Float[Tensor, "batch slots width"]:
        """Gradient of each window's own NLL (of its last prediction) with respect to the slots' vectors."""
        config, number = self._model.config, len(targets)
        vectors = self._model.slot_vectors(control).detach().expand(number, 1, -1, -1).clone().requires_grad_()
        with torch.enable_grad():
            states = self._run(vectors, self._keep(control, number).unsqueeze(1))
            nll = mixture_nll(self._read(states[:, 0], control), targets)[:, -1]
            (gradient,) = torch.autograd.grad(nll.sum(), vectors)
        # Groups of slots do not see one another: the last prediction is the last group's.
        last: Tensor = gradient[:, 0, -config.n_slots :]
        return last

    def _keep(self, control: SlotControl, number: int) -> Tensor:
        """(batch, cuts * slots, 1)."""
        config = self._model.config
        keep = self._memory[0][0].new_ones(1, config.n_slots) if control.keep is None else control.keep
        return keep.expand(number, -1).repeat(1, config.query_cuts).unsqueeze(-1)

    def _run(self, slots: Tensor, keep: Tensor) -> Tensor:
        """Slots through all blocks: (batch, settings, cuts * slots, width)."""
        for block, memory in zip(self._model.blocks, self._memory, strict=True):
            assert isinstance(block, Block)
            slots = slots * keep
            slots = slots + block.out(self._attend(block, slots, memory))
            slots = slots + block.down(F.gelu(block.up(block.mlp_norm(slots))))
        return slots * keep

    def _attend(self, block: Block, slots: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """Slots to the data, and to the slots of their own setting."""
        batch, settings, number, width = slots.shape
        parts = block.qkv(block.attention_norm(slots)).flatten(1, 2).chunk(3, dim=-1)
        query, key, value = map(block.heads, parts)
        keys, values = torch.cat((memory[0], key), dim=2), torch.cat((memory[1], value), dim=2)
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=self._sees(settings, number))
        return mixed.transpose(1, 2).reshape(batch, settings, number, width)

    def _sees(self, settings: int, number: int) -> Tensor:
        """(settings * slots, context + settings * slots), True where a slot sees a token."""
        own = self._model._slot_mask
        if own is None:
            own = torch.ones(
                number, self._model.config.context + number, dtype=torch.bool, device=self._memory[0][0].device
            )
        of_data, of_slots = own.tensor_split([self._model.config.context], dim=1)
        setting = torch.arange(settings, device=own.device).repeat_interleave(number)
        of_slots = of_slots.repeat(settings, settings) & (setting.unsqueeze(1) == setting)
        return torch.cat((of_data.repeat(settings, 1), of_slots), dim=1)

    def _read(self, states: Tensor, control: SlotControl) -> Prediction:
        model = self._model
        slots, weights, pooled = model._read_slots(states, control)
        aux = None if model.aux is None else model._statistics(slots[:, -1])
        return Prediction(*model._mixture(pooled, self._guess, self._center, self._scale), slots, weights, aux)


def predict_settings(sample: Sample, controls: Sequence[SlotControl]) -> list[Prediction]:
    """What the model says of all sampled windows under each setting, without gradients.

    Layouts other than ``postfix`` have nothing to share: there every setting costs a whole pass. ``keep`` has to be
    (1, slots).
    """
    if sample.task.config.layout != "postfix":
        return [sample.predict(control) for control in controls]
    with _evaluating(sample.task.model):
        parts = [data.predict(controls) for data in _batches(sample)]
    return [joined([part[index] for part in parts]) for index in range(len(controls))]


def slot_gradients(sample: Sample) -> Float[Tensor, "windows slots width"]:
    """Gradient of each sampled window's own NLL with respect to each slot's vector as it enters the first block.

    Layout ``postfix`` only. The vector is content + ID with every ID at its own slot (after ``norm_cap``), so this is
    the gradient of the content and of the ID at once, and a reordering of the slots reorders it and changes nothing
    else. Every use of a vector is behind a LayerNorm: each gradient sums to zero over the width.
    """
    if sample.task.config.layout != "postfix":
        raise ValueError(f"layout = {sample.task.config.layout!r}: slot_gradients needs 'postfix'")
    with _evaluating(sample.task.model):
        targets = torch.split(sample.targets, _BATCH)
        pairs = zip(_batches(sample), targets, strict=True)
        return torch.cat([data.gradients(part, sample.setting) for data, part in pairs])


def without(sample: Sample, absent: Collection[int]) -> SlotControl:
    """The setting of evaluation with some of the slots absent from every window."""
    keep = torch.ones(1, sample.task.config.n_slots, device=sample.task.device)
    keep[0, list(absent)] = 0.0
    return replace(sample.setting, keep=keep)


def affordable(sample: Sample, num_settings: int) -> Sample:
    """As many of the windows, evenly spread, as that many settings may take: all, for 32 settings of 8 postfix slots.

    Elsewhere than in ``postfix`` a setting costs a whole pass: 32 windows.
    """
    config = sample.task.config
    tokens = num_settings * config.n_slots
    number = max(_FEWEST, _MAX_SLOT_TOKENS // max(1, tokens)) if config.layout == "postfix" else _FEWEST
    total = len(sample.starts)
    if total <= number:
        return sample
    return sample.take(torch.linspace(0, total - 1, number, device=sample.starts.device).long())


_Kept = tuple[tuple[tuple[int, int], ...], list[_SharedData]]
_kept: WeakKeyDictionary[Sample, _Kept] = WeakKeyDictionary()


def _batches(sample: Sample) -> Iterator[_SharedData]:
    """The shared data of batches of windows in order: those kept if the weights are still the same, else anew."""
    model = sample.task.model
    weights = tuple((id(parameter), parameter._version) for parameter in model.parameters())
    kept = _kept.get(sample)
    if kept is not None and kept[0] == weights:
        yield from kept[1]
        return
    batches: list[_SharedData] = []
    total = 0
    for inputs in torch.split(sample.inputs, _BATCH):
        data = _SharedData(model, inputs)
        total += data.nbytes
        if total <= _MAX_KEPT_BYTES:
            batches.append(data)
        else:
            batches.clear()
        yield data
    if total <= _MAX_KEPT_BYTES:
        _kept[sample] = (weights, batches)


@contextmanager
def _evaluating(model: SpacingModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
