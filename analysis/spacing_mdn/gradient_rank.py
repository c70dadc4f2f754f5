"""K: do the slots pull in different directions, or is one direction enough for all of them?

The effective rank of the slots' gradients. For each sampled window the gradient of its NLL is taken with respect to
each slot's vector; over all windows, the principal components (about zero, so that a gradient common to all slots
counts as one direction) that hold 90% of the squared gradients are counted, and divided by the number of slots.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import require_finite, shown, verdict
from analysis.stats.bootstrap import interval
from trainables.arrays import Array
from trainables.spacing_mdn.sample import Sample
from trainables.spacing_mdn.settings import slot_gradients

_MIN_RANK_SHARE = 0.5  # components over slots; it has to be above
_HELD = 0.9  # of the squared gradients, by the counted components
_RESAMPLES = 500  # each is an eigenvalue problem


@diagnostic("K: rank of slot gradients")
def gradient_rank(subject: Any) -> Finding:
    """Return a finding with values: ``rank_share`` (components / slots, between 1 / slots and 1), ``components``,
    ``first_share`` (of the squared gradients that the first component holds).
    """
    config = subject.config
    if config.layout != "postfix":
        raise NoEvidence(f"Layout {config.layout} has no slots that are read out.")
    if config.n_slots < 2:
        raise NoEvidence("There is one slot: its gradients have no other to differ from.")
    products = gradient_products(subject.sample)
    require_finite("Gradients of the slots are not finite on sampled windows.", products)
    if not products.any():
        raise NoEvidence("No gradient reaches the slots: the prediction does not depend on them.")
    held = _held(products)
    components = _components(products)
    share = interval(lambda part: _components(part) / config.n_slots, products, num=_RESAMPLES)
    good = share.value > _MIN_RANK_SHARE
    meaning = "slots are trained apart" if good else "half of the slots or fewer could take in all of them"
    plot = Plot(
        "Directions of the slots' gradients",
        "principal components",
        "share of squared gradients held",
        "line",
        (Series("sampled windows", tuple(range(1, config.n_slots + 1)), tuple(held.tolist())),),
        lines={f"{_HELD:.0%}": _HELD},
    )
    return answer(
        verdict(share, lambda value: value > _MIN_RANK_SHARE),
        f"{components} of {config.n_slots} directions hold {_HELD:.0%} of the gradients that train the slots "
        f"(share {shown(share, 2)}): {meaning}.",
        {"rank_share": share, "components": float(components), "first_share": float(held[0])},
        {"rank_share": _MIN_RANK_SHARE},
        (plot,),
    )


def gradient_products(sample: Sample) -> Array:
    """(windows, slots, slots): for each window the inner products of its NLL's gradients with respect to each slot."""
    gradients = slot_gradients(sample).double()  # the smallest components are lost in products of float32
    products: Array = (gradients @ gradients.transpose(1, 2)).cpu().numpy()
    return products


def _held(products: Array) -> Array:
    """(slots,) share of the squared gradients that the first 1, 2, ... components hold."""
    eigenvalues = np.linalg.eigvalsh(products.mean(axis=0))[::-1].clip(min=0.0)
    held: Array = np.cumsum(eigenvalues) / max(float(eigenvalues.sum()), 1e-300)
    return held


def _components(products: Array) -> int:
    # Rounding must not ask for one more component than exact arithmetic would.
    return int(np.argmax(_held(products) >= _HELD - 1e-9)) + 1
