"""One-step-ahead predictions along a split: what a model says of long contiguous stretches from its bottom to its top.

The evidence of the diagnostics that 256 sampled windows are too few for, made once for a model and kept for the next
one that asks. The evaluation's windows lie at a stride; these do not.

The split is cut into 8 runs by height. Every window counts that the budget allows; where there are more, each run gives
the contiguous windows in its middle. The budget is counted in parameters times positions, and is smaller on a CPU: a
model of 5 million parameters has 1024 windows of 256 there, one of 0.1 million has all of a split of 10,000. A finding
says how many targets it had.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.diagnose.api import NoEvidence
from trainables.arrays import Array
from trainables.spacing_mdn.loss import mixture_nll
from trainables.spacing_mdn.sample import Sample
from trainables.spacing_mdn.task import SpacingTask

RUNS = 8

_CPU_BUDGET, _BUDGET = 1.26e12, 1e14  # parameters x positions x windows of one sweep, on a CPU and elsewhere
_MIN_WINDOWS = 256
_BATCH = 64


@dataclass(frozen=True)
class Sweep:
    """Targets in order of height, and what was predicted of each from the true spacings before it.

    Attributes:
        positions: (targets,) where in the split; contiguous within a run.
        run: (targets,) 0 for the lowest run, at most 7.
        targets: (targets,) spacings.
        nll: (targets,) nats.
        log_pi, mu, sigma: (targets, components) of the mixtures.
    """

    positions: NDArray[np.int64]
    run: NDArray[np.int64]
    targets: Array
    nll: Array
    log_pi: NDArray[np.float32]
    mu: NDArray[np.float32]
    sigma: NDArray[np.float32]

    @property
    def mean(self) -> Array:
        """(targets,) predicted means."""
        mean: Array = (np.exp(self.log_pi, dtype=np.float64) * self.mu).sum(axis=1)
        return mean

    @property
    def finite(self) -> bool:
        """Whether there is anything, and nothing in it is NaN or infinite."""
        numbers = (self.nll, self.log_pi, self.mu, self.sigma)
        return bool(len(self.nll)) and all(bool(np.isfinite(part).all()) for part in numbers)


_kept: WeakKeyDictionary[SpacingTask, tuple[str, Sweep]] = WeakKeyDictionary()


def sweep(sample: Sample) -> Sweep:
    """Predictions along the split of ``sample``, with the slots as it has them.

    The last sweep of a task is kept, and used again while the weights, the split and the setting are the same.
    """
    key = f"{_digest(sample.task)} {sample.split} {sample.setting}"
    kept = _kept.get(sample.task)
    if kept is None or kept[0] != key:
        kept = _kept[sample.task] = (key, _made(sample))
    return kept[1]


def finite_sweep(sample: Sample) -> Sweep:
    """As `sweep`; raises `NoEvidence` where the model's density is not finite all along the split."""
    swept = sweep(sample)
    if not swept.finite:
        raise NoEvidence("The model's density is not finite along the split.")
    return swept


def _made(sample: Sample) -> Sweep:
    task, windows = sample.task, sample.task.windows(sample.split)
    config = task.config
    # A model that predicts at every position has a run of predictions a window; at that distance they leave no gap.
    tail = config.scored
    starts = torch.arange(windows.first, windows.last + 1, tail)
    chosen, run = _in_runs(len(starts), _num_windows(task))
    parts: list[list[torch.Tensor]] = []
    for some in torch.split(starts[chosen].to(task.device), _BATCH):
        prediction = task.predict(windows.inputs(some), sample.setting)
        targets = windows.targets(some)
        scores = mixture_nll(prediction, targets)
        mixtures = (prediction.log_pi, prediction.mu, prediction.sigma)
        last = [part[:, -tail:].flatten(0, 1).cpu() for part in (targets, scores, *mixtures)]
        parts.append(last)
    ends = starts[chosen].numpy() + config.context
    positions = (ends[:, None] + np.arange(1 - tail, 1)).ravel()
    _, nll, log_pi, mu, sigma = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    # Channels and scores are float32; the spacings themselves are there in full.
    exact = task.part(sample.split).spacings[positions]
    return Sweep(positions, np.repeat(run, tail), exact, nll.astype(np.float64), log_pi, mu, sigma)


def _num_windows(task: SpacingTask) -> int:
    price = sum(parameter.numel() for parameter in task.model.parameters()) * task.config.context
    budget = _CPU_BUDGET if task.device.type == "cpu" else _BUDGET
    return max(_MIN_WINDOWS, int(budget / price))


def _in_runs(number: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of ``number`` windows are looked at, and the run of each."""
    runs = min(RUNS, number)
    per_run = max(1, most // runs)
    chosen, run = [], []
    for index, section in enumerate(np.array_split(np.arange(number), runs)):
        skip = max(0, (len(section) - per_run) // 2)
        chosen.append(section[skip : skip + per_run])
        run.append(np.full(len(chosen[-1]), index))
    return np.concatenate(chosen), np.concatenate(run)


def _digest(task: SpacingTask) -> str:
    """Of all weights and buffers: a model that has been changed in place is another."""
    digest = hashlib.sha256()
    for tensor in task.model.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
