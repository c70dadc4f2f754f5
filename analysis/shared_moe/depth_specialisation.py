"""Does a shared block send tokens to other experts at other depths?

What it is: the Jensen-Shannon distance (base 2: 0 for equal loads, 1 for disjoint ones) of each depth's load to the
mean load, averaged over depths, against what chance alone gives. Finite samples are never quite alike, so the distance
is never zero; the null hypothesis is that it does not matter at which depth a choice was made. In each sample sequence
the depths' assignments are shuffled among depths, all of its tokens together, since tokens of one text go the same
ways: a permutation test, exact if sequences are independent. ``by_chance`` is the 99% quantile under it.
What it is not: a judgement. Experts that serve every depth alike are no fault; but then a block that is told its depth,
or more experts, may be of no use. And routers differ between depths by a little even in untrained models:
``moved_share`` says by how much. Hence a model passes or gets a warning, and never fails.

Source: J. Lin, IEEE Trans. Inf. Theory 37 (1991), 145-151 (the divergence); D. M. Endres and J. E. Schindelin, IEEE
Trans. Inf. Theory 49 (2003), 1858-1860 (its root is a metric).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import shown
from analysis.shared_moe.routed import ALL_CHOSEN, BLOCK, DENSE, Counts, enough, load
from analysis.stats.bootstrap import interval
from trainables.arrays import Array
from trainables.shared_moe.routing import jensen_shannon

_CHANCE = 0.01  # of the models whose depths are alike: they pass all the same
_SHUFFLES = 1000
_RESAMPLES = 500
_SEED = 161


@diagnostic("depth specialisation of routing")
def depth_specialisation(subject: Any) -> Finding:
    """Return a finding with values: ``depth_specialisation``, the mean distance, and ``depth_<i>`` of each application,
    between 0 and 1; ``by_chance``, which it exceeds in 1 of 100 models whose depths are alike; ``moved_share``, the
    share of assignments that would have to go elsewhere for all depths to be alike (mean total variation distance).

    Resampled distances lean upwards, by about as much as chance alone gives, and so do the intervals.
    """
    config = subject.config
    if config.ffn == "dense":
        raise NoEvidence(DENSE)
    if config.blocks == "indexed":
        raise NoEvidence("Each depth has experts of its own: that loads differ says nothing about them.")
    if config.depth == 1:
        raise NoEvidence("The block is applied once: there is one depth.")
    if config.top_k == config.num_experts:
        raise NoEvidence(ALL_CHOSEN)
    seen = enough(subject.sample)
    return judge(seen.counts)


def judge(counts: Counts) -> Finding:
    """The finding on (sequences, depth, experts) assignments."""
    overall = interval(lambda drawn: float(distances(drawn).mean()), counts, BLOCK, _RESAMPLES)
    moved = interval(_moved_share, counts, BLOCK, _RESAMPLES)
    each, shuffled = distances(counts), shuffled_distances(counts)
    by_chance, of_one = (float(np.quantile(null, 1.0 - _CHANCE)) for null in (shuffled.mean(axis=1), shuffled))
    above = overall.value > by_chance
    meaning = (
        "depths send tokens to different experts"
        if above
        else "all depths use the experts alike, so that to tell depths apart gains nothing here"
    )
    return answer(
        "pass" if above else "warn",
        f"The load of a depth is {shown(overall)} away from the mean load (0 is equal, 1 is disjoint; chance alone "
        f"hardly exceeds {by_chance:.3f}), and {moved.value:.1%} of the assignments would have to go elsewhere for "
        f"all depths to be alike: {meaning}.",
        {
            "depth_specialisation": overall,
            "by_chance": by_chance,
            "moved_share": moved,
            **{f"depth_{depth}": float(distance) for depth, distance in enumerate(each)},
        },
        {"depth_specialisation": by_chance},
        _plots(counts, each, of_one),
    )


def distances(counts: Counts) -> Array:
    """(depth,) of each depth's load to the mean load, over (sequences, depth, experts) ``counts``."""
    loads = torch.from_numpy(load(counts))
    result: Array = jensen_shannon(loads, loads.mean(dim=0)).numpy()
    return result


def shuffled_distances(counts: Counts, num: int = _SHUFFLES, seed: int = _SEED) -> Array:
    """(num, depth) what `distances` gives if each sequence's depths are shuffled."""
    rng = np.random.default_rng(seed)
    sequences, depth, _ = counts.shape
    rows, order = np.arange(sequences)[:, None], np.tile(np.arange(depth), (sequences, 1))
    return np.stack([distances(counts[rows, rng.permuted(order, axis=1)]) for _ in range(num)])


def _moved_share(counts: Counts) -> float:
    loads = load(counts)
    return float(np.abs(loads - loads.mean(axis=0)).sum(axis=1).mean() / 2.0)


def _plots(counts: Counts, each: Array, of_one: float) -> tuple[Plot, ...]:
    loads = load(counts)
    return (
        Plot.bars(
            "Distance of each depth's load to the mean load",
            "depth",
            "Jensen-Shannon distance",
            Series("sampled sequences", tuple(range(len(each))), tuple(each.tolist())),
            lines={"exceeded by chance in 1 of 100": of_one},
        ),
        Plot.table("Load by depth, less the mean load", "expert", "depth", (loads - loads.mean(axis=0)).tolist()),
    )
