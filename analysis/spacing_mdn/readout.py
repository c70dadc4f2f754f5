"""D: which slots are read?

What it is: the weights by which slots' states are pooled, and their entropy. What it is not: what a slot contributes
(`slot_effect`): a slot may be read much and say nothing. Reported; only a readout of one slot alone gives a warning.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import shown
from analysis.stats.bootstrap import interval, mean_interval
from trainables.spacing_mdn.settings import predict_settings

ONE_SLOT = 0.9
"""Mean weight from which one slot counts as the only one that is read."""

Array = NDArray[np.float64]


@diagnostic("D: readout weights")
def readout(subject: Any) -> Finding:
    """Return a finding with values: ``slot_<i>``, mean weight over windows, and ``largest``, the greatest of these;
    entropies in nats, at most log(slots): ``entropy``, of a window's weights in the mean, and ``entropy_of_mean``, of
    the mean weights; ``spread``, standard deviation of a slot's weight over windows, in the mean over slots: 0 where
    the readout does not look at the data. All of the group of slots that sees the whole window.
    """
    config, sample = subject.config, subject.sample
    if config.layout != "postfix":
        raise NoEvidence(f"Layout {config.layout} reads no slots out, so there are no weights.")
    if config.n_slots < 2:
        raise NoEvidence("There is one slot, and it has all the weight.")
    readout = predict_settings(sample, [sample.setting])[0].readout
    assert readout is not None  # postfix
    weights: Array = readout[:, -1].double().cpu().numpy()
    if not np.isfinite(weights).all():
        raise NoEvidence("Weights of the readout are not finite on sampled windows.")
    each = [mean_interval(column) for column in weights.T]
    largest = interval(lambda drawn: drawn.mean(axis=0).max(), weights)
    entropy = mean_interval(entropies(weights))
    alone = largest.value >= ONE_SLOT
    first = int(np.argmax(weights.mean(axis=0)))
    meaning = "the others are hardly read" if alone else "the prediction is pooled over several slots"
    return answer(
        "warn" if alone else "pass",
        f"Slot {first} is read most, with {100 * largest.value:.0f}% of the weight, and the entropy of the weights "
        f"is {shown(entropy, 2)} of at most {math.log(config.n_slots):.2f} nats: {meaning}.",
        {
            "largest": largest,
            "entropy": entropy,
            "entropy_of_mean": interval(lambda drawn: float(entropies(drawn.mean(axis=0))), weights),
            "spread": interval(lambda drawn: float(drawn.std(axis=0).mean()), weights),
            **{f"slot_{slot}": weight for slot, weight in enumerate(each)},
        },
        {"largest": ONE_SLOT},
        (
            Plot(
                "Readout weights, mean over windows",
                "slot",
                "weight",
                "bar",
                (Series.of("mean weight", each),),
                lines={"even": 1.0 / config.n_slots},
                x_ticks=tuple(str(slot) for slot in range(config.n_slots)),
            ),
        ),
    )


def entropies(shares: Array) -> Array:
    """Entropy in nats of shares that sum to 1 along the last axis; a share of 0 counts nothing."""
    values: Array = -(shares * np.log(np.where(shares > 0.0, shares, 1.0))).sum(axis=-1)
    return values
