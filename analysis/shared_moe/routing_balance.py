"""Do all experts get work, or has the router collapsed onto a few?

What it is: how the tokens of sampled sequences are spread over experts, against the limits at which a router counts as
collapsed: entropy of the load below 0.6 of an even one's, an expert with more than 8 fair shares (``max_vio`` above 7),
or more than a quarter of the experts dead. Experts that a shared block applies at every depth are judged by their load
over all depths; where each depth has its own, by the mean over depths.
What it is not: a measure of use. An expert may get its share of tokens and do nothing with it (`expert_importance`).

No token goes to one expert twice, so of k choices among E the busiest expert gets at most 1 / k of the assignments, and
``max_vio`` is at most E / k - 1. With E / k = 8 or less (E = 8 and any k, E = 16 and k = 2) no collapse could exceed 7.
The limit is therefore 7 or three quarters of E / k - 1, whichever is less. On the straight way from even loads to two
experts with all of it (k = 2), entropy is down to 0.6 after 0.81, 0.75 and 0.68 of the way with E = 8, 16 and 40, so
that both limits mean about the same; at its end it is ln k / ln E, ``max_vio`` E / k - 1, the dead share 1 - k / E.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Verdict, answer, diagnostic
from analysis.diagnose.verdicts import verdict
from analysis.shared_moe.routed import ALL_CHOSEN, BLOCK, DENSE, Counts, enough, load, worst
from analysis.stats.bootstrap import interval, mean_interval
from analysis.stats.interval import Interval
from trainables.shared_moe.routing import balance_metrics

_MIN_ENTROPY = 0.6
_MAX_VIO = 7.0
_MAX_WAY = 0.75  # from a fair share to all tokens; limits the busiest expert where that is less than _MAX_VIO
_MAX_DEAD_SHARE = 0.25
_RESAMPLES = 500


@diagnostic("routing balance and collapse")
def routing_balance(subject: Any) -> Finding:
    """Return a finding with values, named as training reports them, without unit: ``balance_entropy``, ``max_vio`` and
    ``dead_share``, which are judged; ``balance_entropy_min``, of the depth where it is lowest; ``load_top4``;
    ``token_drop``, the share of assignments that reached no expert; and ``even_experts``, as many as have that entropy
    if their loads are equal.
    """
    config = subject.config
    if config.ffn == "dense":
        raise NoEvidence(DENSE)
    if config.top_k == config.num_experts:
        raise NoEvidence(ALL_CHOSEN)
    seen = enough(subject.sample)
    return judge(seen.counts, config.top_k, shared=config.blocks == "shared", token_drop=1.0 - seen.reached)


def judge(counts: Counts, top_k: int, *, shared: bool, token_drop: float = 0.0) -> Finding:
    """The finding on (sequences, depth, experts) assignments."""
    num = counts.shape[2]
    limits = {
        "balance_entropy": _MIN_ENTROPY,
        "max_vio": highest_vio(num, top_k),
        "dead_share": _MAX_DEAD_SHARE,
    }
    values = _estimates((*limits, "balance_entropy_min", "load_top4"), counts, shared)
    verdicts = {
        "balance_entropy": verdict(values["balance_entropy"], lambda value: value >= _MIN_ENTROPY),
        "max_vio": verdict(values["max_vio"], lambda value: value <= limits["max_vio"]),
        "dead_share": verdict(values["dead_share"], lambda value: value <= _MAX_DEAD_SHARE),
    }
    even = num ** values["balance_entropy"].value
    busiest, dead = (1.0 + values["max_vio"].value) / num, values["dead_share"].value
    return answer(
        worst(verdicts.values()),
        f"The {num} experts{'' if shared else ' of a depth'} share the work as {even:.1f} would that share it "
        f"evenly; the busiest gets {busiest:.1%} of the assignments (a fair share is {1.0 / num:.1%}), and "
        f"{dead:.0%} of the experts get next to none: {_meaning(verdicts)}.",
        {**values, "even_experts": even, "token_drop": token_drop},
        limits,
        _plots(counts, shared),
    )


def highest_vio(num_experts: int, top_k: int) -> float:
    """The limit on ``max_vio``; see the module."""
    return min(_MAX_VIO, _MAX_WAY * (num_experts / top_k - 1.0))


def _estimates(names: Sequence[str], counts: Counts, shared: bool) -> dict[str, Interval]:
    measured: dict[bytes, dict[str, float]] = {}  # one seed draws the same sequences for every name

    def metrics(drawn: Counts) -> dict[str, float]:
        totals = drawn.sum(axis=0)
        key = totals.tobytes()
        if key not in measured:
            measured[key] = balance_metrics(torch.from_numpy(totals), shared=shared)
        return measured[key]

    return {
        name: interval(lambda drawn, name=name: metrics(drawn)[name], counts, BLOCK, _RESAMPLES)  # type: ignore[misc]
        for name in names
    }


def _meaning(verdicts: dict[str, Verdict]) -> str:
    words = {
        "balance_entropy": "the load is spread too little",
        "max_vio": "one expert gets too much",
        "dead_share": "too many experts are idle",
    }
    failed = [words[name] for name, judgement in verdicts.items() if judgement == "fail"]
    if failed:
        return f"the router has collapsed ({', '.join(failed)})"
    if "warn" in verdicts.values():
        return "close to what counts as a collapse"
    return "no collapse"


def _plots(counts: Counts, shared: bool) -> tuple[Plot, ...]:
    loads = load(counts)
    num = loads.shape[1]
    texts, lines = ("Mean load", "share of the assignments"), {"fair share": 1.0 / num}
    if shared:
        each = [mean_interval(one, BLOCK, _RESAMPLES) for one in (counts / counts.sum(2, keepdims=True)).mean(1).T]
        mean = Plot.bars(texts[0], "expert", texts[1], Series.of("sampled sequences", each), lines=lines)
    else:  # experts of the same number at two depths have nothing to do with each other
        busiest_first = (-np.sort(-loads, axis=1)).mean(axis=0)
        bars = Series("mean over depths", tuple(range(num)), tuple(busiest_first.tolist()))
        label = "expert of a depth, the busiest first"
        mean = Plot(texts[0], label, texts[1], "bar", (bars,), lines=lines)
    return Plot.table("Load by depth and expert", "expert", "depth", loads.tolist()), mean
