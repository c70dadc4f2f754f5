"""May the Jacobian's penalty take training over, as a whole or in some group of weights?

What it is: the gradient of the loss and that of the penalty at the largest weight that the config allows it, group of
weights by group: their ratio by norm and their cosine. The two are nearly orthogonal, so a penalty whose gradient is
the longer one steers by itself. A cap holds the whole gradient's ratio, and not each group's: gains of norms, which
hold few numbers, may still be driven by the penalty alone.
What it is not: the weight at this moment, which live health follows (H33, H34): a controller may never get there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, Verdict, answer, diagnostic
from analysis.equilibrium.looked import BODY, by_group, cosine, estimated, problems_of
from trainables.equilibrium import stability
from trainables.training.seeding import make_generator

_WARN, _HIJACKED = 1.0, 3.0
"""Norm of the penalty's gradient over the loss's, as live health has it (H33, H34)."""
_BATCHES, _SEQUENCES = 4, 4


@diagnostic("the penalty's gradient against the loss's, by group of weights")
def hijack(subject: Any) -> Finding:
    """Return a finding with values at the largest weight that the config allows: ``ratio`` of the penalty's gradient
    to the loss's, ``ratio_without_cap``, ``cosine`` of both, ``loss_cosine`` of the loss's and the sum;
    ``jr_of_equals``, the weight at which both are as long; ``ratio_of_<group>`` and ``cosine_of_<group>``. All are
    without the head's.
    """
    config = subject.config
    if config.jr_mode == "off":
        raise NoEvidence("There is no penalty: jr_mode = 'off'.")
    generator = make_generator(0, "hijack")
    losses: dict[str, list[torch.Tensor]] = {}
    penalties: dict[str, list[torch.Tensor]] = {}
    for problem in problems_of(subject, _BATCHES, _SEQUENCES):
        z = problem.free.z
        v = torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z)
        for kept, gradients in ((losses, estimated(problem).gradients), (penalties, stability.penalty(problem, v)[1])):
            for group, vector in by_group(config, gradients).items():
                kept.setdefault(group, []).append(vector)
    most = config.jr if config.jr_mode == "fixed" else config.jr_max
    means = [{g: torch.stack(some).mean(dim=0) for g, some in kept.items()} for kept in (losses, penalties)]
    return judge(means[0], means[1], most, config.jr_cap)


def judge(
    loss: Mapping[str, torch.Tensor], penalty: Mapping[str, torch.Tensor], most: float, cap: float | None
) -> Finding:
    """The finding on gradients by group, the penalty's at a weight of 1, for weights up to ``most`` under ``cap``."""
    ratios = {group: float(penalty[group].norm() / loss[group].norm()) for group in loss}
    if not math.isfinite(ratios[BODY]):
        raise NoEvidence("A gradient of the loss or of the penalty is not finite, or is zero.")
    uncapped = most * ratios[BODY]
    weight = most if cap is None or uncapped <= cap else cap / ratios[BODY]
    groups = [group for group in loss if group != BODY and ratios[group] > 0.0]
    driven = {group: weight * ratios[group] for group in groups}
    whole = weight * ratios[BODY]
    values: dict[str, Value] = {
        "ratio": whole,
        "ratio_without_cap": uncapped,
        "cosine": cosine(loss[BODY], penalty[BODY]),
        "loss_cosine": cosine(loss[BODY], loss[BODY] + weight * penalty[BODY]),
        "jr_of_equals": 1.0 / ratios[BODY] if ratios[BODY] else math.inf,
    }
    values |= {f"ratio_of_{group}": ratio for group, ratio in driven.items()}
    values |= {f"cosine_of_{group}": cosine(loss[group], penalty[group]) for group in groups}
    verdict, said = _judged(whole, uncapped, driven, cap)
    summary = f"At a weight of {weight:.3g} the penalty's gradient is {whole:.2g} times as long as the loss's: {said}."
    plot = Plot(
        f"The penalty's gradient over the loss's at a weight of {weight:.3g}",
        "group",
        "ratio of norms",
        "bar",
        (Series("ratio", tuple(range(len(groups))), tuple(driven.values())),),
        lines={"equal": _WARN, "hijacked": _HIJACKED},
        x_ticks=tuple(groups),
    )
    return answer(verdict, summary, values, {"ratio": _WARN}, (plot,))


def _judged(whole: float, uncapped: float, driven: Mapping[str, float], cap: float | None) -> tuple[Verdict, str]:
    worst = max(driven, key=lambda group: driven[group])
    if whole > _HIJACKED:
        return "fail", "it steers training, which no cap prevents"
    if whole > _WARN:
        return "warn", "it can outweigh the loss"
    if driven[worst] > _HIJACKED:
        return "warn", f"the loss steers as a whole, but in {worst} the penalty is {driven[worst]:.1f} times as long"
    held = f"; without the cap it would be {uncapped:.2g} times" if cap is not None and uncapped > whole else ""
    return "pass", f"the loss steers{held}"
