"""E: is the prediction spread over the slots, or does one of them make it?

What it is: how far the predicted mean moves when one slot is absent (root mean square over windows), and each slot's
share of the sum of these. What it is not: `slot_ablation`, which asks whether the score suffers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import verdict
from analysis.spacing_mdn.readout import entropies
from analysis.stats.bootstrap import interval
from analysis.stats.interval import Interval
from trainables.spacing_mdn.model import Prediction
from trainables.spacing_mdn.sample import Sample
from trainables.spacing_mdn.settings import affordable, predict_settings, without

MAX_SHARE = 0.6
HARDLY = 0.004
"""Largest effect, in mean spacings, below which there is hardly one to share: 1% of the spacings' deviation of 0.4."""

_NOTHING = 1e-6  # spacings: float32 leaves no more of a mean about 1
Array = NDArray[np.float64]


@diagnostic("E: slot effect")
def slot_effect(subject: Any) -> Finding:
    """Return a finding with values: ``slot_<i>``, RMS change of the predicted mean without that slot, in mean spacings;
    ``largest_share`` of their sum that one slot has, and ``largest_effect``, its change; ``entropy`` of the shares in
    nats, at most log(slots); ``windows`` looked at. A largest effect of next to nothing gives a warning, however it is
    shared.
    """
    number = subject.config.n_slots
    if not number:
        raise NoEvidence("The model has no slots whose effect could be measured.")
    if number == 1:
        raise NoEvidence("There is one slot, and all the effect is its own.")
    sample = affordable(subject.sample, 1 + number)
    squares = squared_changes(sample)
    if not np.isfinite(squares).all():
        raise NoEvidence("Predicted means are not finite on sampled windows.")
    effects = np.sqrt(squares.mean(axis=0))
    if effects.max() <= _NOTHING:
        raise NoEvidence(f"Without any one of its {number} slots the model predicts the same: no effect to share out.")
    share = interval(lambda drawn: float(_shares(drawn).max()), squares)
    entropy = interval(lambda drawn: float(entropies(_shares(drawn))), squares)
    return _judge(squares, share, entropy)


def _judge(squares: Array, share: Interval, entropy: Interval) -> Finding:
    number = squares.shape[1]
    each = [interval(lambda drawn: math.sqrt(drawn.mean()), column) for column in squares.T]
    first = int(np.argmax([effect.value for effect in each]))
    judgement = verdict(share, lambda value: value < MAX_SHARE)
    if each[first].value < HARDLY:
        judgement = "fail" if judgement == "fail" else "warn"
        meaning = "there is hardly an effect to share out"
    elif share.value < MAX_SHARE:
        meaning = "no slot makes the prediction by itself"
    else:
        meaning = "one slot makes the prediction"
    bars = Series.of("slot absent", each)
    ticks = tuple(str(slot) for slot in range(number))
    axis = "RMS change (mean spacings)"
    return answer(
        judgement,
        f"Slot {first} moves the predicted mean most, by {each[first].value:.3g} mean spacings: "
        f"{100 * share.value:.0f}% ({100 * share.low:.0f} to {100 * share.high:.0f}) of the effect of all "
        f"{number}, with an entropy of {entropy.value:.2f} of at most {math.log(number):.2f} nats: {meaning}.",
        {
            "largest_share": share,
            "largest_effect": each[first],
            "entropy": entropy,
            **{f"slot_{slot}": effect for slot, effect in enumerate(each)},
            "windows": float(len(squares)),
        },
        {"largest_share": MAX_SHARE, "largest_effect": HARDLY},
        (Plot("Change of the predicted mean without one slot", "slot", axis, "bar", (bars,), x_ticks=ticks),),
    )


def squared_changes(sample: Sample) -> Array:
    """(windows, slots) squared change of the predicted mean without each slot, in mean spacings squared.

    The mean of the last prediction; of models that predict at every position, of the last ``eval_tail``, averaged.
    """
    config = sample.task.config
    tail = 1 if config.layout == "postfix" else config.eval_tail

    def mean(prediction: Prediction) -> Array:
        means: Array = (prediction.log_pi.exp() * prediction.mu).sum(dim=-1)[:, -tail:].double().cpu().numpy()
        return means

    whole, *absent = predict_settings(
        sample, [without(sample, ()), *(without(sample, (i,)) for i in range(config.n_slots))]
    )
    return np.stack([np.square(mean(part) - mean(whole)).mean(axis=1) for part in absent], axis=1)


def _shares(squares: Array) -> Array:
    """(slots,) shares of the sum of root mean squares; even where a resample has none at all."""
    effects = np.sqrt(squares.mean(axis=0))
    total = effects.sum()
    shares: Array = effects / total if total > 0.0 else np.full(len(effects), 1.0 / len(effects))
    return shares
