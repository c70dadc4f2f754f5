"""Is what is wrong with the gradient bias or noise: would averaging over more batches repair it?

What it is: the error of the estimate on many batches, each against the exact gradient of the same batch. Averaged over
n batches, the squared error is that of the mean error and 1 / n of what errors vary by; the squared gradient likewise.
So the error of one batch is told from the error in the limit of many, which is bias. Squares of means are taken without
bias of their own, from products of different batches alone. Beside them the cosine at averages over 1 to 16 batches.
What it is not: the noise of batches, which averaging lowers whatever the estimator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, Verdict, answer, diagnostic
from analysis.diagnose.verdicts import shown
from analysis.equilibrium.looked import (
    BODY,
    RIGHT,
    by_group,
    cosine,
    estimated,
    exact,
    own_name,
    problems_of,
)
from analysis.stats.interval import Interval, mean_interval

_BATCHES, _SEQUENCES = 16, 4
_SMALL = math.sqrt(1.0 / RIGHT**2 - 1.0)
"""Length of an error across a gradient, as a share of it, that leaves the cosine at `RIGHT`."""


@diagnostic("bias or noise: what averaging over batches repairs")
def navg_sweep(subject: Any) -> Finding:
    """Return a finding with values ``error_of_one_batch`` and ``error_in_the_limit``, lengths of errors as shares of
    the exact gradient's, the second with Student's t by the jackknife over batches; ``batches_needed`` for the right
    direction, infinite if none suffice; ``cosine_at_navg_<n>``.
    """
    config = subject.config
    own, true = [], []
    for problem in problems_of(subject, _BATCHES, _SEQUENCES):
        true.append(by_group(config, exact(problem).gradients)[BODY])
        own.append(by_group(config, estimated(problem).gradients)[BODY])
    return judge(own_name(config), torch.stack(own), torch.stack(true))


def judge(name: str, own: Tensor, true: Tensor) -> Finding:
    """The finding on (batches, weights) gradients."""
    errors = own - true
    products = (errors @ errors.T).double(), (true @ true.T).double()
    one = math.sqrt(float(products[0].diagonal().sum() / products[1].diagonal().sum()))
    if not math.isfinite(one):
        raise NoEvidence(f"Gradients of {name} are not finite.")
    limit = limit_of(*products)
    cosines = {n: _cosine_at(own, true, n) for n in (1, 2, 4, 8, 16) if n <= len(own)}
    right = cosines[1].value >= RIGHT
    needed = 1.0 if right else batches_needed(*products)
    values: dict[str, Value] = {"error_of_one_batch": one, "error_in_the_limit": limit, "batches_needed": needed}
    values |= {f"cosine_at_navg_{n}": value for n, value in cosines.items()}
    verdict: Verdict
    if right and limit.low > _SMALL:
        verdict, said = "warn", "one batch gives the right direction, but its error does not average out"
    elif right:
        verdict, said = "pass", "one batch gives the right direction"
    elif limit.low > _SMALL:
        verdict, said = "fail", "it is biased, and no average over batches repairs it"
    elif limit.high < _SMALL:
        verdict, said = "warn", f"it is noise, which averages over about {needed:.0f} batches repair"
    else:
        verdict, said = "warn", "whether averages over batches repair it is open"
    summary = (
        f"An estimate of {name} is off by {one:.2f} of the gradient's length on one batch, and by {shown(limit, 2)} in "
        f"the limit of many: {said}."
    )
    return answer(verdict, summary, values, {"error_in_the_limit": _SMALL}, (_plot(name, cosines),))


def parts(products: Tensor) -> tuple[float, float]:
    """Squared length of the mean and variance of one batch, without bias, from (batches, batches) products."""
    n = len(products)
    own = float(products.diagonal().sum())
    mean = (float(products.sum()) - own) / (n * (n - 1))
    return mean, own / n - mean


def limit_of(errors: Tensor, gradients: Tensor) -> Interval:
    """Length of the mean error over that of the mean gradient, with Student's t by the jackknife over batches."""

    def squared(index: Tensor) -> float:
        mean = parts(gradients[index][:, index])[0]
        return parts(errors[index][:, index])[0] / mean if mean > 0.0 else math.nan

    n = len(errors)
    index = torch.arange(n)
    whole = squared(index)
    half = mean_interval([n * whole - (n - 1) * squared(index[index != i]) for i in range(n)]).half_width
    return Interval(*(math.sqrt(max(end, 0.0)) for end in (whole, whole - half, whole + half)))


def batches_needed(errors: Tensor, gradients: Tensor) -> float:
    """How many batches an average takes for an error that leaves the direction right; infinite if none suffice."""
    (bias, noise), (signal, spread) = parts(errors), parts(gradients)
    left = _SMALL**2 * signal - max(bias, 0.0)
    return float(max(1, math.ceil((noise - _SMALL**2 * spread) / left))) if left > 0.0 else math.inf


def _cosine_at(own: Tensor, true: Tensor, number: int) -> Interval:
    """Of averages over ``number`` batches, mean over all that are apart."""
    groups = len(own) // number
    averages = [some[: groups * number].view(groups, number, -1).mean(dim=1) for some in (own, true)]
    return mean_interval([cosine(a, b) for a, b in zip(*averages, strict=True)])


def _plot(name: str, cosines: Mapping[int, Interval]) -> Plot:
    return Plot(
        f"Direction of the averaged gradient of {name}",
        "batches averaged",
        "cosine with the exact gradient of the same batches",
        series=(Series.of("mean over averages", list(cosines.values()), tuple(map(float, cosines))),),
        lines={"right": RIGHT},
        log_x=True,
    )
