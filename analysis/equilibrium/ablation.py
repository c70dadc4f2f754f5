"""Which estimators find the gradient of this model, group of weights by group?

What it is: on a few batches the gradient by every estimator beside the exact one, which solves the adjoint equation at
the same state: their cosine, the ratio of their norms, the cosine with reverse mode through the config's last steps,
and that of one batch's gradient with another's, which is what is left to learn from. Judged is the estimator that the
model is trained by.
What it is not: training. It is this one model, and an estimator that is right here may be wrong later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from analysis.diagnose.api import Finding, Plot, Series, Value, answer, diagnostic
from analysis.diagnose.verdicts import shown, verdict
from analysis.equilibrium.looked import (
    BODY,
    RIGHT,
    Groups,
    by_group,
    contenders,
    cosine,
    estimated,
    exact,
    own_name,
    problems_of,
    ranked,
)
from analysis.stats.interval import Interval, mean_interval

_BATCHES, _SEQUENCES = 4, 4
_EXACT = "exact"
_LEAST_RATIO, _MOST_RATIO = 0.5, 2.0
"""Norm of a gradient over the exact one's that are worth a warning."""


@diagnostic("gradient estimators against the exact gradient, by group of weights")
def ablation(subject: Any) -> Finding:
    """Return a finding with values ``cosine_<estimator>``, ``norm_ratio_<estimator>`` against the exact gradient,
    ``cosine_to_bptt_<estimator>``, ``self_cosine_<estimator>`` between batches, of all weights but the head's;
    and ``cosine_of_<group>`` of the model's own estimator. Intervals are Student's t over batches.
    """
    return judge(own_name(subject.config), measured(subject))


def measured(subject: Any) -> dict[str, list[Groups]]:
    """The gradients of a few batches by each estimator, and by the name ``exact``."""
    config = subject.config
    gradients: dict[str, list[Groups]] = {name: [] for name in (*contenders(config), _EXACT)}
    for problem in problems_of(subject, _BATCHES, _SEQUENCES):
        gradients[_EXACT].append(by_group(config, exact(problem).gradients))
        for name, fields in contenders(config).items():
            gradients[name].append(by_group(config, estimated(problem, **fields).gradients))
    return gradients


def judge(own: str, gradients: Mapping[str, list[Groups]]) -> Finding:
    """The finding on gradients of the same batches by each estimator, and by the name ``exact``."""
    true = gradients[_EXACT]
    names = [name for name in gradients if name != _EXACT]
    by_name = {name: _cosines(gradients[name], true) for name in names}
    bodies = {name: of[BODY] for name, of in by_name.items()}
    values: dict[str, Value] = {f"cosine_{name}": value for name, value in bodies.items()}
    values |= {f"norm_ratio_{name}": _ratio(gradients[name], true) for name in names}
    values |= {f"cosine_to_bptt_{name}": _cosines(gradients[name], gradients["bptt"])[BODY] for name in names}
    values |= {f"self_cosine_{name}": _self_cosine(gradients[name]) for name in (*names, _EXACT)}
    values |= {f"cosine_of_{group}": value for group, value in by_name[own].items() if group != BODY}
    verdict_, said = _judged(own, by_name[own], _ratio(gradients[own], true))
    away = [f"{name} {shown(value, 2)}" for name, value in ranked(bodies) if name != own and not value.value >= RIGHT]
    others = f" On the same batches these do not point the right way: {', '.join(away)}." if away else ""
    threshold = {f"cosine_{own}": RIGHT}
    return answer(verdict_, f"{said}{others}", values, threshold, _plots(own, by_name))  # type: ignore[arg-type]


def _judged(own: str, cosines: Mapping[str, Interval], ratio: Interval) -> tuple[str, str]:
    body = cosines[BODY]
    found: str = verdict(body, lambda value: value >= RIGHT)
    said = f"The gradient of {own} has a cosine of {shown(body)} with the exact one, all weights but the head's"
    worst = min(
        (group for group in cosines if cosines[group].value < RIGHT), key=lambda g: cosines[g].value, default=""
    )
    if found == "no_evidence":
        return found, f"{said}: it is not finite."
    if found == "pass" and worst:
        return "warn", f"{said}, but of {worst} it is {shown(cosines[worst])}."
    if found == "pass" and not _LEAST_RATIO <= ratio.value <= _MOST_RATIO:
        return "warn", f"{said}, but it is {ratio.value:.3g} times as long."
    words = {"pass": "it points the right way", "warn": "whether it points the right way is open"}
    return found, f"{said}: {words.get(found, 'it does not point the right way')}."


def _cosines(some: list[Groups], true: list[Groups]) -> dict[str, Interval]:
    return {
        group: mean_interval([cosine(a[group], b[group]) for a, b in zip(some, true, strict=True)]) for group in true[0]
    }


def _ratio(some: list[Groups], true: list[Groups]) -> Interval:
    return mean_interval([float(a[BODY].norm() / b[BODY].norm()) for a, b in zip(some, true, strict=True)])


def _self_cosine(some: list[Groups]) -> float:
    """Mean over pairs of batches."""
    pairs = [cosine(a[BODY], b[BODY]) for a, b in combinations(some, 2)]
    return math.fsum(pairs) / len(pairs)


def _plots(own: str, by_name: Mapping[str, Mapping[str, Interval]]) -> tuple[Plot, ...]:
    y_label, lines = "cosine with the exact gradient", {"right": RIGHT}
    bodies = ranked({name: of[BODY] for name, of in by_name.items()})
    overall = Plot(
        "Direction of the gradient by estimator, all weights but the head's",
        "estimator",
        y_label,
        "points",
        (Series.of("mean over batches", [value for _, value in bodies]),),
        lines=lines,
        x_ticks=tuple(name for name, _ in bodies),
    )
    groups = tuple(group for group in by_name[own] if group != BODY)
    shown_ = dict.fromkeys((own, "ep", "aep_frozen"))
    series = tuple(Series.of(name, [by_name[name][group] for group in groups]) for name in shown_)
    by_group_ = Plot(
        "Direction of the gradient by group of weights", "group", y_label, "bar", series, lines=lines, x_ticks=groups
    )
    return overall, by_group_
