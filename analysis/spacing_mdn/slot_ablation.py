"""A: what does the model lose when slots are taken away?

The change of the NLL with slots absent: zero in front of every block and without a share in the readout. One by one,
then together: the k most important by themselves, and k at random, in the mean over a few seeded draws.

Without any slot nothing of the data reaches a ``postfix`` model's mixture, so that this costs much says nothing about
the slots: it is reported and not judged. Under ``prefix`` the data go past the slots, and it is judged as well. A model
that is no worse without any slot has no use for them, whatever one absence costs: it gets a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import shown, verdict
from analysis.spacing_mdn.slots import nll_under
from analysis.stats.bootstrap import interval, mean_interval
from analysis.stats.interval import Interval
from trainables.arrays import Array
from trainables.spacing_mdn.sample import Sample
from trainables.spacing_mdn.settings import affordable, without

_MIN_CHANGE = 0.02  # nats that the worst absence has to cost
_TOGETHER = (2, 4, 8)
_DRAWS = 4
_SEED = 161


@diagnostic("A: slot ablation")
def slot_ablation(subject: Any) -> Finding:
    """Return a finding with values, changes of the NLL in nats: ``max_change``, the largest of those judged;
    ``slot_<i>`` without one slot; ``top_<k>`` without the k most important, ``random_<k>`` without k at random;
    ``none_left``. ``nll``: with all.

    The largest of several changes leans upwards, the more so the fewer the windows (``windows``).
    """
    config = subject.config
    number, reads = config.n_slots, config.layout == "postfix"
    if not number:
        raise NoEvidence("The model has no slots, so there are none to take away.")
    if reads and number == 1:
        raise NoEvidence("There is one slot, and all that the prediction knows comes through it.")
    sizes = [size for size in _TOGETHER if size < number]
    sample = affordable(subject.sample, 2 + number + len(sizes) * (1 + _DRAWS))
    own, *single = _nll_without(sample, [(), *((slot,) for slot in range(number))])
    singles = np.stack(single) - own
    order = np.argsort(-singles.mean(axis=1), kind="stable").tolist()
    rng = np.random.default_rng(_SEED)
    drawn = [rng.choice(number, size, replace=False).tolist() for size in sizes for _ in range(_DRAWS)]
    rest = _nll_without(sample, [*(order[:size] for size in sizes), range(number), *drawn]) - own
    tops = dict(zip([1, *sizes, number], [singles[order[0]], *rest[: len(sizes) + 1]], strict=True))
    at_random = rest[len(sizes) + 1 :].reshape(len(sizes), _DRAWS, len(own)).mean(axis=1)
    randoms = dict(zip([1, *sizes, number], [singles.mean(axis=0), *at_random, tops[number]], strict=True))
    judged = np.stack([*singles, *(tops[size] for size in sizes), *([] if reads else [tops[number]])], axis=1)
    return _judge(own, singles, tops, randoms, interval(lambda drawn: drawn.mean(axis=0).max(), judged))


def _judge(own: Array, singles: Array, tops: dict[int, Array], randoms: dict[int, Array], largest: Interval) -> Finding:
    number = len(singles)
    each = [mean_interval(change) for change in singles]
    top = {size: mean_interval(change) for size, change in tops.items()}
    random = {size: mean_interval(change) for size, change in randoms.items()}
    judgement = verdict(largest, lambda value: value >= _MIN_CHANGE)
    if largest.value < _MIN_CHANGE:
        meaning = "the prediction hardly needs them, or each holds what the others hold"
    elif top[number].value <= 0.0:
        judgement, meaning = "warn", "to lose some does harm, but to have none does not"
    else:
        meaning = "the prediction needs what the slots hold"
    return answer(
        judgement,
        f"Taking slots away one by one, or the most important together, raises the NLL by {shown(largest)} nats at "
        f"most (without any of the {number}: {top[number].value:.3f}): {meaning}.",
        {
            "max_change": largest,
            "nll": mean_interval(own),
            **{f"slot_{slot}": change for slot, change in enumerate(each)},
            **{f"top_{size}": change for size, change in top.items() if size < number},
            **{f"random_{size}": change for size, change in random.items() if size < number},
            "none_left": top[number],
            "windows": float(len(own)),
        },
        {"max_change": _MIN_CHANGE, "none_left": 0.0},
        (
            Plot.bars(
                "NLL without one slot",
                "slot",
                "change of NLL (nats)",
                Series.of("slot absent", each),
                lines={"least that passes": _MIN_CHANGE},
            ),
            _curves(top, random),
        ),
    )


def _nll_without(sample: Sample, absent: Sequence[Collection[int]]) -> Array:
    """(sets, windows) NLL in nats with each set of slots absent."""
    otherwise = "The model's density is not finite on sampled windows, slots or not."
    return nll_under(sample, [without(sample, slots) for slots in absent], otherwise)


def _curves(top: dict[int, Interval], random: dict[int, Interval]) -> Plot:
    sizes = list(top)
    return Plot(
        "NLL without several slots",
        "slots absent",
        "change of NLL (nats)",
        "line",
        (
            Series.of("the most important", list(top.values()), sizes),
            Series.of(f"at random ({_DRAWS} draws)", list(random.values()), sizes),
        ),
        lines={"least that passes": _MIN_CHANGE},
    )
