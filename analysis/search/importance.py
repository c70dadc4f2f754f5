"""Which hyperparameters decided who did well: PED-ANOVA over a run's candidates, beside what chance would show.

The share of each drawn parameter in telling the best candidates from all, at one gate. Shares add up to one whether or
not anything matters, so each is held against the same analysis of shuffled scores. They are not the effect of changing
one parameter (`tune-rh ab` measures that).

Sources: S. Watanabe, A. Bansal and F. Hutter, PED-ANOVA (IJCAI 2023), arXiv 2304.10255, as implemented by Optuna; P. H.
Westfall and S. S. Young, Resampling-Based Multiple Testing (1993), chapter 2 (one level for all parameters).
"""

from __future__ import annotations

import math
import random
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from analysis.view import Entry, Run

if TYPE_CHECKING:
    import optuna

MIN_CANDIDATES = 10
ENOUGH = 30
"""So many make a gate worth more than the one before; with fewer, chance alone reaches large shares."""
_MIN_BEST, _BEST_SHARE = 10, 0.1  # whom PED-ANOVA compares with all: few of them show nothing
_SHUFFLES = 99
_ALPHA = 0.05


@dataclass(frozen=True)
class _Share:
    """One parameter.

    Attributes:
        share: of what sets the best apart; the shares of all parameters add up to one.
        p_value: how often the largest of all parameters is as far above its own average, with scores shuffled over the
            candidates: a chance of one false finding among all parameters, not for each.
    """

    name: str
    share: float
    p_value: float

    @property
    def stands_out(self) -> bool:
        """Whether chance hardly shows as much."""
        return self.p_value <= _ALPHA


@dataclass(frozen=True)
class Importance:
    """The analysis of the scores at one gate, or why there is none.

    Attributes:
        shares: most important first; empty without enough candidates.
        num_best: how many of the candidates counted as the good ones.
        note: in words what it was made of, or what was missing.
    """

    shares: tuple[_Share, ...]
    gate: int | None
    until_step: int
    num_candidates: int
    num_best: int
    note: str


def importance(run: Run, seed: int = 0) -> Importance:
    """Importance at the highest gate that enough candidates with drawn parameters reached, else at the first.

    Later gates are nearer to the end but see only those that earlier ones let through, so that a parameter which the
    first gate has settled looks unimportant there; the note says which gate it was.
    """
    usable = [[e for e in entries if _is_usable(run, e)] for entries in run.gates]
    counts = [len(entries) for entries in usable]
    most = max(counts, default=0)
    gate = max((k for k, count in enumerate(counts) if count >= ENOUGH), default=counts.index(most))
    if most < MIN_CANDIDATES:
        why = f"{most} candidates with drawn parameters were scored at a gate; it takes {MIN_CANDIDATES}"
        return Importance((), None, 0, most, 0, f"No importance: {why}.")
    entries = usable[gate]
    until, num_best = entries[0].until_step, max(_MIN_BEST, math.ceil(_BEST_SHARE * len(entries)))
    num_best = min(num_best, len(entries) // 2)
    scores = [run.sign * e.score for e in entries]
    alone = _alone(run, entries)
    study = _study(run, entries, alone)
    divergences = _divergences(study, scores, num_best)
    total = math.fsum(divergences.values())
    if not total:
        return Importance((), gate, until, len(entries), num_best, "No importance: no parameter sets the best apart.")
    rng = random.Random(seed)
    shuffled = [_divergences(study, rng.sample(scores, len(scores)), num_best) for _ in range(_SHUFFLES)]
    p_values = _p_values(divergences, shuffled)
    shares = [_Share(name, value / total, p_values[name]) for name, value in divergences.items()]
    shares.sort(key=lambda s: (-s.share, s.name))
    note = (
        f"PED-ANOVA over {len(entries)} candidates scored at step {until} (gate {gate + 1} of {len(usable)}): what "
        f"sets the best {num_best} apart from all"
    )
    if len(entries) < most:
        note += f"; those {most - len(entries)} that earlier gates stopped are not in it"
    if alone:
        note += f"; left out, since all candidates but one drew it alike or not at all: {', '.join(alone)}"
    return Importance(tuple(shares), gate, until, len(entries), num_best, note + ".")


def _is_usable(run: Run, entry: Entry) -> bool:
    candidate = run.candidates[entry.candidate]
    return bool(candidate.params) and entry.seed is None and math.isfinite(entry.score)


def _p_values(divergences: Mapping[str, float], shuffled: Sequence[Mapping[str, float]]) -> dict[str, float]:
    average = {name: fmean(values[name] for values in shuffled) for name in divergences}
    varying = [name for name in divergences if average[name] > 0.0]
    largest = [max((values[name] / average[name] for name in varying), default=0.0) for values in shuffled]
    p_values = dict.fromkeys(divergences, 1.0)
    for name in varying:
        p_values[name] = (1 + sum(x >= divergences[name] / average[name] for x in largest)) / (1 + len(largest))
    return p_values


def _divergences(study: optuna.Study, scores: Sequence[float], num_best: int) -> dict[str, float]:
    """How far the distribution of each parameter among the best is from that among all (Pearson's divergence)."""
    from optuna.importance import PedAnovaImportanceEvaluator

    evaluator = PedAnovaImportanceEvaluator(target_quantile=num_best / len(scores))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PedAnova.* low `target` values")  # low is what they are to be
        divergences: dict[str, float] = evaluator.evaluate(study, target=lambda trial: scores[trial.number])
    return {name: value if math.isfinite(value) else 0.0 for name, value in divergences.items()}


def _alone(run: Run, entries: Sequence[Entry]) -> list[str]:
    """Parameters that a single candidate drew, or did not, or from another distribution: one tells nothing of it."""
    drawn = [run.candidates[entry.candidate].distributions for entry in entries]
    names = sorted({name for distributions in drawn for name in distributions})
    return [name for name in names if 1 in Counter(distributions.get(name) for distributions in drawn).values()]


def _study(run: Run, entries: Sequence[Entry], without: Sequence[str]) -> optuna.Study:
    """The entries in order, without their scores: making a study takes longer than one analysis of it."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="minimize")
    finally:
        optuna.logging.set_verbosity(before)
    for entry in entries:
        candidate = run.candidates[entry.candidate]
        read = optuna.distributions.json_to_distribution
        distributions = {name: read(text) for name, text in candidate.distributions.items() if name not in without}
        params = {name: candidate.params[name] for name in distributions}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=0.0))
    return study
