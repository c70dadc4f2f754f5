"""J: does the prediction depend on which ID each slot carries?

The change of the NLL when the slots' IDs are shuffled over their contents, over 50 seeded permutations. Roles that are
bound to IDs make a model worse under other IDs; roles that contents carry do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import shown, verdict
from analysis.spacing_mdn.slots import nll_under
from analysis.stats.bootstrap import mean_interval
from trainables.arrays import Array
from trainables.spacing_mdn.sample import Sample
from trainables.spacing_mdn.slots import SlotControl
from trainables.training.seeding import make_generator

_NUM_PERMUTATIONS = 50
_MAX_INCREASE = 0.05  # nats that shuffled IDs may cost in the mean
_MAX_WINDOWS = 64  # evenly spread: each is run 51 times, and differences of a window vary little
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
    own, permuted = _permuted_nll(sample)
    return _judge(own, permuted)


def _judge(own: Array, permuted: Array) -> Finding:
    increase = mean_interval(permuted.mean(axis=0) - own, _BLOCK)
    each = permuted.mean(axis=1) - own.mean()
    percents = increase.times(100.0 / max(abs(float(own.mean())), 1e-9))
    good = increase.value < _MAX_INCREASE
    meaning = "does not hang on which slot carries which ID" if good else "hangs on which slot carries which ID"
    return answer(
        verdict(increase, lambda value: value < _MAX_INCREASE),
        f"Shuffling the slots' IDs {_NUM_PERMUTATIONS} times changes the NLL by {shown(increase)} nats "
        f"({round(percents.value, 1) + 0.0:.1f}%; worst {each.max():.3f}): the prediction {meaning}.",
        {
            "nll": mean_interval(own, _BLOCK),
            "increase": increase,
            "increase_percent": percents,
            "worst_increase": float(each.max()),
            "spread": float(each.std()),
        },
        {"increase": _MAX_INCREASE},
        (_plot(each),),
    )


def _permuted_nll(sample: Sample) -> tuple[Array, Array]:
    """NLL in nats of some windows: (windows,) with own IDs, (permutations, windows) with permuted ones."""
    config, setting = sample.task.config, sample.setting
    generator = make_generator(_SEED, "permutation")
    orders = [torch.randperm(config.n_slots, generator=generator) for _ in range(_NUM_PERMUTATIONS)]
    own_first = (None, *(order.to(sample.task.device) for order in orders))
    every = -(-len(sample.starts) // _MAX_WINDOWS)
    some = sample.take(torch.arange(0, len(sample.starts), every))
    nll = nll_under(some, [SlotControl(order, setting.ids, setting.content) for order in own_first])
    return nll[0], nll[1:]


def _plot(each: Array) -> Plot:
    ordered = np.sort(each)
    return Plot(
        "NLL under permuted slot IDs",
        "permutation, from the best to the worst",
        "change of NLL (nats)",
        "points",
        (Series("permutations", tuple(range(1, len(ordered) + 1)), tuple(ordered.tolist())),),
        lines={"most that passes, in the mean": _MAX_INCREASE},
    )
