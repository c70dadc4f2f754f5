"""The marginal density of the spacings, and the alarm where nothing else can be known: on a random order of them."""

from __future__ import annotations

import numpy as np

from analysis.diagnose.api import Finding, answer
from analysis.diagnose.verdicts import shown, verdict
from analysis.spacing_mdn.sweep import Sweep
from analysis.stats.bootstrap import mean_interval
from trainables.arrays import Array

_BINS = 64
_MAX_GAIN = 0.02
"""Nats per spacing over the marginal that a smoother density of it may have over a histogram."""


def marginal_nll(below: Array, targets: Array) -> Array:
    """(targets,) nats under a histogram of ``below``, half a count added to each of its bins.

    Bins are even from 0 to the largest of ``below``; what lies above counts in the last. Source of the half: Krichevsky
    and Trofimov, The performance of universal encoding (1981).
    """
    top = float(below.max())
    counts = np.histogram(below, _BINS, (0.0, top))[0] + 0.5
    density = counts / counts.sum() * (_BINS / top)
    nll: Array = -np.log(density[np.clip((targets * (_BINS / top)).astype(int), 0, _BINS - 1)])
    return nll


def alarm(below: Array, swept: Sweep) -> Finding:
    """Return a finding on a data set without order, with values, in nats per spacing: ``gain`` over the marginal of
    what lies ``below``, ``nll`` and ``nll_marginal`` on the same targets. It fails if there is a gain.
    """
    marginal = marginal_nll(below, swept.targets)
    gain, nll, floor = (mean_interval(values) for values in (marginal - swept.nll, swept.nll, marginal))
    leaks = gain.value > _MAX_GAIN
    return answer(
        verdict(gain, lambda value: value <= _MAX_GAIN),
        f"Spacings in a random order tell nothing of the next one but the marginal, {floor.value:.3f} nats. On the "
        f"same {len(swept.nll)} targets the model has {nll.value:.3f}, a gain of {shown(gain)}: it "
        f"{'knows its targets before it predicts them' if leaks else 'has seen none of its targets'}.",
        {"gain": gain, "nll": nll, "nll_marginal": floor},
        {"gain": _MAX_GAIN},
    )
