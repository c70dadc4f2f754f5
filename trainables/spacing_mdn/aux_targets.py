"""Eight statistics of a window of spacings that slots may be asked to know: M0..M7, z-scored by the training split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from trainables.spacing_mdn.config import NUM_STATISTICS

_NAMES = (
    "mean(x) - 1",
    "entropy of the histogram",
    "max |dx|",
    "1% quantile",
    "mean |d2x|",
    "|mean of first half - mean of second half|",
    "energy of the upper half of the spectrum",
    "variance of the variances in runs of 16",
)
_RUN = 16
_BINS, _TOP = 32, 4.0
"""The histogram's bins are even over [0, 4]; spacings of zeros stay under 3.4, and what is above counts in the last."""


def window_statistics(windows: Float[Tensor, "batch context"]) -> Float[Tensor, "batch 8"]:
    """M0..M7 of windows of at least 32 spacings (two runs), in the order of `_NAMES`.

    M1 is in nats. M6 is the mean over frequencies from a quarter to half a cycle per spacing of the power |rfft(x -
    mean)|^2 / n. M7 takes whole runs of 16 from the start; variances are population variances. NaN in a window gives
    NaN in its row (its histogram aside).
    """
    mean = windows.mean(dim=-1)
    step = windows.diff(dim=-1)
    half = windows.shape[-1] // 2
    halves = windows[:, :half].mean(dim=-1) - windows[:, half:].mean(dim=-1)
    return torch.stack(
        (
            mean - 1.0,
            _histogram_entropy(windows),
            step.abs().amax(dim=-1),
            windows.quantile(0.01, dim=-1),
            step.diff(dim=-1).abs().mean(dim=-1),
            halves.abs(),
            _upper_energy(windows - mean.unsqueeze(-1)),
            _variance_of_variances(windows),
        ),
        dim=-1,
    )


def _histogram_entropy(windows: Tensor) -> Tensor:
    bins = (windows * (_BINS / _TOP)).long().clamp(0, _BINS - 1)
    counts = windows.new_zeros(len(windows), _BINS).scatter_add_(1, bins, torch.ones_like(windows))
    shares = counts / windows.shape[-1]
    entropy: Tensor = torch.special.entr(shares).sum(dim=-1)
    return entropy


def _upper_energy(centred: Tensor) -> Tensor:
    length = centred.shape[-1]
    power = torch.fft.rfft(centred, dim=-1).abs().square() / length
    energy: Tensor = power[:, (power.shape[-1] - 1) // 2 + 1 :].mean(dim=-1)
    return energy


def _variance_of_variances(windows: Tensor) -> Tensor:
    runs = windows[:, : windows.shape[-1] // _RUN * _RUN].reshape(len(windows), -1, _RUN)
    spread: Tensor = runs.var(dim=-1, correction=0).var(dim=-1, correction=0)
    return spread


@dataclass(frozen=True)
class StatisticsScale:
    """Mean and standard deviation, (8,) each, of the statistics over the training split."""

    mean: Float[Tensor, " 8"]
    std: Float[Tensor, " 8"]

    @staticmethod
    def fit(windows: Float[Tensor, "batch context"]) -> StatisticsScale:
        """From windows of the training split. A statistic that does not vary is centred and left at its scale."""
        values = window_statistics(windows)
        assert values.shape[-1] == NUM_STATISTICS
        std = values.std(dim=0, correction=0)
        return StatisticsScale(values.mean(dim=0), torch.where(std > 1e-12, std, torch.ones_like(std)))

    def targets(self, windows: Float[Tensor, "batch context"]) -> Float[Tensor, "batch 8"]:
        """The z-scored statistics of ``windows``."""
        return (window_statistics(windows) - self.mean) / self.std
