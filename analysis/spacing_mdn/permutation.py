"""J: does the prediction depend on which ID each slot carries?

What it is: the change of the NLL when the slots' IDs are shuffled over their contents, over 50 seeded permutations.
Roles that are bound to IDs make a model worse under other IDs; roles that contents carry do not.
What it is not: `id_only` and `content_only`, which take one of the two away.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import shown, verdict
from analysis.stats.bootstrap import mean_interval
from analysis.stats.interval import Interval
from trainables.spacing_mdn.sample import Sample
from trainables.spacing_mdn.settings import predict_settings, score
from trainables.spacing_mdn.slots import SlotControl
from trainables.training.seeding import make_generator

NUM_PERMUTATIONS = 50
MAX_INCREASE = 0.05
"""Nats that shuffled IDs may cost in the mean."""

MAX_WINDOWS = 64
"""Sampled windows that are looked at, evenly spread: each is run 51 times, and differences of a window vary little."""

_SEED = 314
_BLOCK = 2  # of the bootstrap: a quarter of the windows, a quarter of the usual block


@diagnostic("J: permutation sanity")
def permutation(subject: Any) -> Finding:
    """Return a finding with values: ``nll`` with every slot's own ID and ``increase`` (mean over permutations), nats;
    ``increase_percent`` of the absolute ``nll``, which means little where that is near 0; ``worst_increase`` and
    ``spread``, the largest and the standard deviation over permutations, nats.
    """
    sample: Sample = subject.sample
    config, setting = subject.config, sample.setting
    if config.layout != "postfix":
        raise NoEvidence(f"Layout {config.layout} has no slots that read the data, so there are no IDs to permute.")
    if config.n_slots < 2:
        raise NoEvidence("There is one slot: its ID cannot be permuted.")
    if not (setting.ids and setting.content):
        gone = "contents" if setting.ids else "IDs"
        raise NoEvidence(f"The model is evaluated without {gone}, so a permutation changes nothing.")
    own, permuted = permuted_nll(sample, NUM_PERMUTATIONS)
    if not (np.isfinite(own).all() and np.isfinite(permuted).all()):
        raise NoEvidence("The model's density is not finite on sampled windows.")
    return _judge(own, permuted)


def _judge(own: NDArray[np.float64], permuted: NDArray[np.float64]) -> Finding:
    increase = mean_interval(permuted.mean(axis=0) - own, _BLOCK)
    each = permuted.mean(axis=1) - own.mean()
    percent = 100.0 / max(abs(float(own.mean())), 1e-9)
    percents = Interval(increase.value * percent, increase.low * percent, increase.high * percent)
    good = increase.value < MAX_INCREASE
    meaning = "does not hang on which slot carries which ID" if good else "hangs on which slot carries which ID"
    return answer(
        verdict(increase, lambda value: value < MAX_INCREASE),
        f"Shuffling the slots' IDs {NUM_PERMUTATIONS} times changes the NLL by {shown(increase)} nats "
        f"({round(percents.value, 1) + 0.0:.1f}%; worst {each.max():.3f}): the prediction {meaning}.",
        {
            "nll": mean_interval(own, _BLOCK),
            "increase": increase,
            "increase_percent": percents,
            "worst_increase": float(each.max()),
            "spread": float(each.std()),
        },
        {"increase": MAX_INCREASE},
        (_plot(each),),
    )


def permuted_nll(sample: Sample, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """NLL in nats of at most `MAX_WINDOWS` windows: (windows,) with own IDs, (number, windows) with permuted ones."""
    config, setting = sample.task.config, sample.setting
    generator = make_generator(_SEED, "permutation")
    orders = [torch.randperm(config.n_slots, generator=generator).to(sample.task.device) for _ in range(number)]
    controls = [SlotControl(order, setting.ids, setting.content) for order in (None, *orders)]
    every = -(-len(sample.starts) // MAX_WINDOWS)
    some = sample.take(torch.arange(0, len(sample.starts), every))
    own, *permuted = (score(some, prediction).cpu().numpy() for prediction in predict_settings(some, controls))
    return own, np.stack(permuted)


def _plot(each: NDArray[np.float64]) -> Plot:
    ordered = np.sort(each)
    return Plot(
        "NLL under permuted slot IDs",
        "permutation, from the best to the worst",
        "change of NLL (nats)",
        "points",
        (Series("permutations", tuple(range(1, len(ordered) + 1)), tuple(ordered.tolist())),),
        lines={"most that passes, in the mean": MAX_INCREASE},
    )
