"""E: is the prediction spread over the slots, or does one of them make it?

How far the predicted mean moves when one slot is absent, for better or worse (root mean square over windows), and each
slot's share of the sum of these.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import require_finite, verdict
from analysis.spacing_mdn.slots import entropies
from analysis.stats.bootstrap import interval
from analysis.stats.interval import Interval
from trainables.arrays import Array
from trainables.spacing_mdn.sample import Sample
from trainables.spacing_mdn.settings import affordable, predict_settings, without

_MAX_SHARE = 0.6
_HARDLY = 0.004  # mean spacings: a largest effect of 1% of the spacings' deviation is hardly one to share out
_NOTHING = 1e-6  # spacings: float32 leaves no more of a mean about 1


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
    squares = _squared_changes(sample)
    require_finite("Predicted means are not finite on sampled windows.", squares)
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
    judgement = verdict(share, lambda value: value < _MAX_SHARE)
    if each[first].value < _HARDLY:
        judgement = "fail" if judgement == "fail" else "warn"
        meaning = "there is hardly an effect to share out"
    elif share.value < _MAX_SHARE:
        meaning = "no slot makes the prediction by itself"
    else:
        meaning = "one slot makes the prediction"
    title, axis = "Change of the predicted mean without one slot", "RMS change (mean spacings)"
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
        {"largest_share": _MAX_SHARE, "largest_effect": _HARDLY},
        (Plot.bars(title, "slot", axis, Series.of("slot absent", each)),),
    )


def _squared_changes(sample: Sample) -> Array:
    """(windows, slots) squared change of the predicted mean without each slot, in the mean over scored predictions."""
    config = sample.task.config
    controls = [without(sample, ()), *(without(sample, (slot,)) for slot in range(config.n_slots))]
    means = ((p.log_pi.exp() * p.mu).sum(dim=-1)[:, -config.scored :] for p in predict_settings(sample, controls))
    whole, *absent = (mean.double().cpu().numpy() for mean in means)
    return np.stack([np.square(part - whole).mean(axis=1) for part in absent], axis=1)


def _shares(squares: Array) -> Array:
    """(slots,) shares of the sum of root mean squares; even where a resample has none at all."""
    effects = np.sqrt(squares.mean(axis=0))
    total = effects.sum()
    shares: Array = effects / total if total > 0.0 else np.full(len(effects), 1.0 / len(effects))
    return shares
