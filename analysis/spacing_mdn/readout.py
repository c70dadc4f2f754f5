"""D: which slots are read?

The weights by which slots' states are pooled, and their entropy. A slot may be read much and say nothing
(`slot_effect`). Reported; only a readout of one slot alone gives a warning.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import require_finite, shown
from analysis.spacing_mdn.slots import entropies
from analysis.stats.bootstrap import interval, mean_interval
from trainables.arrays import Array
from trainables.spacing_mdn.settings import predict_settings

_ONE_SLOT = 0.9  # mean weight from which one slot counts as the only one that is read


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
    require_finite("Weights of the readout are not finite on sampled windows.", weights)
    each = [mean_interval(column) for column in weights.T]
    largest = interval(lambda drawn: drawn.mean(axis=0).max(), weights)
    entropy = mean_interval(entropies(weights))
    alone = largest.value >= _ONE_SLOT
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
        {"largest": _ONE_SLOT},
        (
            Plot.bars(
                "Readout weights, mean over windows",
                "slot",
                "weight",
                Series.of("mean weight", each),
                lines={"even": 1.0 / config.n_slots},
            ),
        ),
    )
