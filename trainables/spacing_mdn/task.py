"""Training and evaluation of `spacing_mdn`: the family's `TrainTask`.

It takes one step, or evaluates, when it is told to, and keeps no file and no clock. All its random choices come from
generators of its own: window starts, permutations of slot IDs and dropped slots from `torch.Generator`s, dropout from
an `RngStream` that is entered for the length of a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainables.api import Split
from trainables.spacing_mdn.aux_targets import StatisticsScale
from trainables.spacing_mdn.config import SlotIdMode, SpacingConfig
from trainables.spacing_mdn.data.spacings import Part, SpacingData, load
from trainables.spacing_mdn.loss import aux_loss, mixture_entropy, mixture_nll, ortho_loss
from trainables.spacing_mdn.model import Prediction, SpacingModel
from trainables.spacing_mdn.slots import PLAIN, SlotControl
from trainables.spacing_mdn.windows import Channels, Windows, features_of
from trainables.training.schedules import ramp
from trainables.training.seeding import RngStream, make_generator
from trainables.training.step import OptimStep, parameter_group, parameter_groups, snapshot

_EVAL_BATCH = 64  # the same on every device, since a permutation holds for a batch
_EVAL_SEED = 271_828  # permutations in evaluation belong to the windows, not to the seed of a member
_STATISTICS_WINDOWS = 1024


class SpacingTask:
    """One model in training on one data set; the seed is of weights, order of the data, dropout and permutations.

    Raises `DataError` if the data set is missing or corrupt.
    """

    def __init__(self, config: SpacingConfig, *, seed: int, device: str, data_dir: Path) -> None:
        self.config = config
        self._device = torch.device(device)
        self._data = load(config.data, data_dir).trained_on_last(config.train_blocks)
        self._channels = Channels.fit(config, self._data.train, features_of(config, self._data, data_dir))
        self._windows: dict[str, Windows] = {}
        self._train = Windows(config, self._data.train, self._channels, self._device)
        # Built on the CPU, so that a seed gives the same weights on every device.
        with RngStream(seed, "weights", torch.device("cpu")):
            self.model = SpacingModel(config).to(self._device)
        self._channels.remember_in(self.model)
        self._noise = RngStream(seed, "dropout", self._device)
        self._window_rng = make_generator(seed, "windows")
        self._slot_rng = make_generator(seed, "slots")
        self._statistics = self._fit_statistics() if config.aux_mode != "off" else None
        self._optim = OptimStep(
            _parameter_groups(self.model, config),
            lr=config.lr_at,
            device=self._device,
            clip=config.clip,
            accumulation=config.accumulation,
            amp=config.amp,
            betas=config.betas,
        )

    def step(self) -> dict[str, float]:
        """Take one optimiser step on ``batch_size`` windows.

        Returns:
            ``train_loss``, ``train_nll``, ``grad_norm`` (before clipping), ``lr``; ``train_aux`` and ``train_ortho``,
            before their weights, where they are on. Non-finite values are returned, and then no weight has moved.
        """
        micro_batches = self.config.accumulation
        starts = self._train.starts(self.config.batch_size, self._window_rng).chunk(micro_batches)
        controls = self._training_controls(micro_batches)
        self.model.train()
        with self._noise:
            return self._optim.take(lambda index: self._loss(starts[index], controls[index]))

    def evaluate(self, split: Split = "val") -> dict[str, float]:
        """Score the fixed windows of ``split``.

        Returns:
            ``{split}_nll`` in nats per spacing and ``{split}_nll_se``, its standard error as if targets were
            independent; with ``eval_perm_average`` also ``{split}_nll_perm_mean`` and ``{split}_nll_perm_std`` over
            that many seeded permutations of the slots' IDs.
        """
        nll = self.target_nll(split)
        report = {f"{split}_nll": nll.mean().item(), f"{split}_nll_se": (nll.std() / math.sqrt(nll.numel())).item()}
        if self.config.eval_perm_average:
            generator = make_generator(_EVAL_SEED, "average")
            orders = [self._order(generator) for _ in range(self.config.eval_perm_average)]
            means = torch.stack([self.target_nll(split, self._control(order)).mean() for order in orders])
            report[f"{split}_nll_perm_mean"] = means.mean().item()
            report[f"{split}_nll_perm_std"] = means.std(correction=0).item()
        return report

    @torch.inference_mode()
    def target_nll(self, split: Split, control: SlotControl | None = None) -> Float[Tensor, " targets"]:
        """Negative log density of each evaluated target of ``split``, float64, in the order of windows.

        ``control`` None sets the slots as ``eval_slot_id_mode`` says, with permutations, one for each batch, that are
        the same at every call.
        """
        windows = self.windows(split)
        mode, generator = self.config.eval_slot_id_mode, make_generator(_EVAL_SEED, "batches")
        tail = self.config.scored
        scores = []
        training = self.model.training
        self.model.eval()
        for starts in torch.split(windows.evaluated_starts(), _EVAL_BATCH):
            setting = self._setting(mode, generator) if control is None else control
            with self._optim.autocast():
                nll = mixture_nll(self.model(windows.inputs(starts), setting), windows.targets(starts))
            scores.append((nll if self.config.reads_once else nll[:, -tail:]).flatten())
        self.model.train(training)
        return torch.cat(scores).double()  # so that means of many of them add no rounding of their own

    @torch.inference_mode()
    def predict(self, inputs: Float[Tensor, "batch context channels"], control: SlotControl = PLAIN) -> Prediction:
        """What the model says of windows, in evaluation mode and at the precision of evaluation."""
        training = self.model.training
        self.model.eval()
        with self._optim.autocast():
            prediction: Prediction = self.model(inputs, control)
        self.model.train(training)
        return prediction

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._device

    @property
    def data(self) -> SpacingData:
        """The data set; of its training split what the config trains on."""
        return self._data

    def part(self, split: Split) -> Part:
        """The spacings and heights of a split."""
        return self._data.val if split == "val" else self._data.test

    def windows(self, split: Split) -> Windows:
        """The windows of a split."""
        if split not in self._windows:
            start = self._data.start(split)
            self._windows[split] = Windows(self.config, self.part(split), self._channels, self._device, start)
        return self._windows[split]

    def windows_of(self, part: Part) -> Windows:
        """The windows of any spacings in the place of validation, with features fitted on the training split."""
        data = replace(self._data, val=part)
        return Windows(self.config, part, self._channels.along(self.config, data), self._device, data.start("val"))

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything that `step` depends on; plain containers, numbers and tensors."""
        state: dict[str, Any] = snapshot(
            {
                "model": self.model.state_dict(),
                "optim": self._optim.state_dict(),
                "rng": {
                    "windows": self._window_rng.get_state(),
                    "slots": self._slot_rng.get_state(),
                    "dropout": self._noise.state_dict(),
                },
            }
        )
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``, whatever seed this task was built with."""
        self.model.load_state_dict(state["model"])
        self._optim.load_state_dict(state["optim"])
        self._window_rng.set_state(state["rng"]["windows"].cpu())
        self._slot_rng.set_state(state["rng"]["slots"].cpu())
        self._noise.load_state_dict(state["rng"]["dropout"])

    def _loss(self, starts: Tensor, control: SlotControl) -> tuple[Tensor, dict[str, Tensor]]:
        config, step = self.config, self._optim.step
        prediction = self.model(self._train.inputs(starts), control)
        nll = mixture_nll(prediction, self._train.targets(starts)).mean()
        loss, parts = nll, {"train_nll": nll}
        if config.entropy_reg:
            loss = loss - config.entropy_reg * mixture_entropy(prediction.log_pi).mean()
        if self._statistics is not None:
            parts["train_aux"] = aux_loss(prediction.aux, self._statistics.targets(self._train.spacings(starts)))
            first = (config.aux_ramp_first_steps, config.aux_ramp_first * config.aux_weight)
            weight = ramp(step, ((0, 0.0), first, (config.aux_ramp_steps, config.aux_weight)))
            loss = loss + weight * parts["train_aux"]
        if config.ortho_weight:
            parts["train_ortho"] = ortho_loss(prediction.slots)
            weight = ramp(step, ((0, 0.0), (config.ortho_ramp_steps, config.ortho_weight)))
            loss = loss + weight * parts["train_ortho"]
        return loss, parts

    def _training_controls(self, micro_batches: int) -> list[SlotControl]:
        """One permutation for the whole step; dropped slots drawn for each window of it."""
        config = self.config
        if not config.n_slots:
            return [SlotControl()] * micro_batches
        warm = config.slot_id_mode == "permute_per_batch" and self._optim.step < config.perm_warmup_steps
        setting = self._setting("fixed" if warm else config.slot_id_mode, self._slot_rng)
        if not config.slot_dropout:
            return [setting] * micro_batches
        drawn = torch.rand(config.batch_size, config.n_slots, generator=self._slot_rng)
        keep = (drawn >= config.slot_dropout).float().to(self._device)
        return [SlotControl(setting.order, setting.ids, setting.content, part) for part in keep.chunk(micro_batches)]

    def _setting(self, mode: SlotIdMode, generator: torch.Generator) -> SlotControl:
        order = self._order(generator) if mode == "permute_per_batch" else None
        return self._control(order, ids=mode != "off")

    def _control(self, order: Tensor | None, *, ids: bool = True) -> SlotControl:
        return SlotControl(order, ids, self.config.content_mode == "normal")

    def _order(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(self.config.n_slots, generator=generator).to(self._device)

    def _fit_statistics(self) -> StatisticsScale:
        span = self._train.last - self._train.first
        starts = torch.linspace(0, span, min(_STATISTICS_WINDOWS, span + 1), device=self._device).long()
        return StatisticsScale.fit(self._train.spacings(starts + self._train.first))


def _parameter_groups(model: SpacingModel, config: SpacingConfig) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms, positions and slots only if all do; slots learn at their own rate."""
    everything = config.decays == "all"
    memory = [] if model.slots is None else list(model.slots.parameters())
    slots = {id(parameter) for parameter in memory}
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    decaying = [
        parameter
        for parameter in model.parameters()
        if id(parameter) not in slots and (everything or id(parameter) in matrices)
    ]
    return [
        *parameter_groups(model, decaying, weight_decay=config.weight_decay, apart=memory),
        parameter_group(
            memory, lr_scale=config.memory_lr_mult, weight_decay=config.weight_decay if everything else 0.0
        ),
    ]
