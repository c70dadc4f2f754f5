"""Windows that a model is looked at on: a sample for diagnostics, and three for the law that models are causal.

The sample is the same, of one split, for every model that reads windows of the same length.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trainables.api import CausalProbe, Split
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.loss import mixture_nll
from trainables.spacing_mdn.model import Prediction
from trainables.spacing_mdn.slots import SlotControl
from trainables.spacing_mdn.task import SpacingTask

NUM_WINDOWS = 256
_SEED = 2718


@dataclass(frozen=True)
class Sample:
    """The sample, in order of height.

    Attributes:
        starts: where each window starts in the split.
        targets: postfix one a cut, the last follows the window; otherwise one a position.
        log_height: log(g / 2 pi) of the block in which the last target lies.
    """

    task: SpacingTask
    split: Split
    starts: Int[Tensor, " windows"]
    inputs: Float[Tensor, "windows context channels"]
    targets: Float[Tensor, "windows predictions"]
    log_height: Float[Tensor, " windows"]

    def take(self, index: Int[Tensor, " chosen"]) -> Sample:
        """The windows at some places of the sample."""
        here = index.to(self.starts.device)
        return replace(
            self,
            starts=self.starts[here],
            inputs=self.inputs[here],
            targets=self.targets[here],
            log_height=self.log_height[index.to(self.log_height.device)],
        )

    @property
    def setting(self) -> SlotControl:
        """The slots as evaluation has them, but for permutations: IDs are each slot's own."""
        config = self.task.config
        return SlotControl(None, config.eval_slot_id_mode != "off", config.content_mode == "normal")

    def predict(self, control: SlotControl | None = None, batch: int = 64) -> Prediction:
        """What the model says of all windows, without gradients; ``keep`` of (1, slots) holds for every window."""
        parts = [self.task.predict(part, control or self.setting) for part in torch.split(self.inputs, batch)]
        return joined(parts)

    def nll(self, prediction: Prediction) -> Float[Tensor, " windows"]:
        """Float64 negative log density of each window's own target in nats, in the mean over its scored predictions."""
        scores = mixture_nll(prediction, self.targets).double()
        return scores[:, -self.task.config.scored :].mean(dim=1)


def draw(task: SpacingTask, split: Split = "val", number: int = NUM_WINDOWS, seed: int = _SEED) -> Sample:
    """Draw ``number`` windows (all there are, if fewer), without repetition, uniform over the split."""
    windows = task.windows(split)
    span = windows.last - windows.first + 1
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(span, generator=generator)[: min(number, span)].sort().values + windows.first
    starts = chosen.to(task.device)
    heights = torch.tensor(task.part(split).log_height)
    block = ((chosen + task.config.context) // BLOCK).clamp(max=len(heights) - 1)
    return Sample(task, split, starts, windows.inputs(starts), windows.targets(starts), heights[block])


def joined(parts: list[Prediction]) -> Prediction:
    """Predictions of batches as one."""
    columns = ([getattr(part, field.name) for part in parts] for field in fields(Prediction))
    whole: list[Any] = [None if column[0] is None else torch.cat(column) for column in columns]
    return Prediction(*whole)


def probe(task: SpacingTask) -> CausalProbe:
    """The mixtures of the first, the middle and the last window of the validation split.

    A series goes through all that a split goes through on its way to the model: features, windows, targets.
    """
    part = task.part("val")
    windows = task.windows_of(part)
    starts = torch.tensor([windows.first, (windows.first + windows.last) // 2, windows.last], device=task.device)

    def predict(series: Float[Tensor, " spacings"]) -> Float[Tensor, "predictions numbers"]:
        prediction = task.predict(task.windows_of(replace(part, spacings=series.numpy())).inputs(starts))
        return torch.cat((prediction.log_pi, prediction.mu, prediction.sigma), dim=-1).flatten(0, 1)

    series = torch.from_numpy(part.spacings.copy())
    return CausalProbe(series, series.flip(0), predict, windows.places(starts).flatten().cpu())
