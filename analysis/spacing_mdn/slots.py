"""What the diagnostics of slots share: NLLs under settings of the slots, and sums over pairs and shares of slots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.diagnose.verdicts import require_finite
from trainables.arrays import Array
from trainables.spacing_mdn.sample import Sample
from trainables.spacing_mdn.settings import predict_settings
from trainables.spacing_mdn.slots import SlotControl

_NOT_FINITE = "The model's density is not finite on sampled windows."


def nll_under(sample: Sample, controls: Sequence[SlotControl], otherwise: str = _NOT_FINITE) -> Array:
    """(settings, windows) NLL of each sampled window in nats; raises `NoEvidence` where one of them is not finite."""
    nll = np.stack([sample.nll(prediction).cpu().numpy() for prediction in predict_settings(sample, controls)])
    require_finite(otherwise, nll)
    return nll


def pairs(table: Array) -> Array:
    """(..., pairs) absolute values above the diagonal of (..., slots, slots)."""
    first, second = np.triu_indices(table.shape[-1], k=1)
    return np.abs(table[..., first, second])


def entropies(shares: Array) -> Array:
    """Entropy in nats of shares that sum to 1 along the last axis; a share of 0 counts nothing."""
    values: Array = -(shares * np.log(np.where(shares > 0.0, shares, 1.0))).sum(axis=-1)
    return values
