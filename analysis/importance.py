"""Which hyperparameters decided who did well: PED-ANOVA over a run's candidates, beside what chance would show.

What it is: the share of each drawn parameter in telling the best candidates from all, at one gate. Shares add up to one
whether or not anything matters, so each is held against the same analysis of shuffled scores. What it is not: the
effect of changing one parameter (`tune-rh ab` measures that), nor a statement about values outside the space.

Source: S. Watanabe, A. Bansal and F. Hutter, PED-ANOVA (IJCAI 2023), arXiv 2304.10255, as implemented by Optuna.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.gate_scores import Entry, gate_entries
from analysis.records import Records

if TYPE_CHECKING:
    import optuna

MIN_CANDIDATES = 10
_MIN_BEST = 5  # PED-ANOVA compares the distribution of the best with that of all: it takes a few of them
_BEST_SHARE = 0.1
_SHUFFLES = 50
_NOISE_LEVEL = 0.95


@dataclass(frozen=True)
class Share:
    """One parameter: ``share`` of 1, and what it reaches in 95% of shuffles of the scores over the candidates."""

    name: str
    share: float
    noise: float

    @property
    def stands_out(self) -> bool:
        """Whether the share is above what chance shows."""
        return self.share > self.noise


@dataclass(frozen=True)
class Importance:
    """The analysis, or why there is none.

    Attributes:
        shares: most important first; empty without enough candidates.
        gate: 0-based, that the scores are from; None without.
        until_step: its step.
        num_candidates: how many entered the analysis, of them ``num_best`` as the good ones.
        note: in words what it was made of, or what was missing.
    """

    shares: tuple[Share, ...]
    gate: int | None
    until_step: int
    num_candidates: int
    num_best: int
    note: str


def importance(records: Records, seed: int = 0) -> Importance:
    """Importance at the highest gate that enough candidates with drawn parameters reached.

    Later gates are nearer to the end but see only those that earlier ones let through, so that a parameter which the
    first gate has settled looks unimportant there; the note says which gate it was.

    Args:
        records: of a search; races and comparisons draw nothing.
        seed: of the shuffles.
    """
    usable = [[e for e in entries if _is_usable(records, e)] for entries in gate_entries(records)]
    counts = [len(entries) for entries in usable]
    gate = max((k for k, count in enumerate(counts) if count >= MIN_CANDIDATES), default=None)
    if gate is None:
        most = max(counts, default=0)
        why = f"{most} candidates with drawn parameters were scored at a gate; it takes {MIN_CANDIDATES}"
        return Importance((), None, 0, most, 0, f"No importance: {why}.")
    entries = usable[gate]
    until, num_best = entries[0].until_step, max(_MIN_BEST, math.ceil(_BEST_SHARE * len(entries)))
    scores = [records.sign * e.score for e in entries]
    found = _shares(records, entries, scores, num_best)
    if not found:
        return Importance((), gate, until, len(entries), num_best, "No importance: no parameter varied.")
    rng = random.Random(seed)
    shuffled: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(_SHUFFLES):
        for name, share in _shares(records, entries, rng.sample(scores, len(scores)), num_best).items():
            shuffled[name].append(share)
    at = math.ceil(_NOISE_LEVEL * _SHUFFLES) - 1
    shares = [Share(name, share, sorted(shuffled[name])[at]) for name, share in found.items()]
    shares.sort(key=lambda s: (-s.share, s.name))
    note = (
        f"PED-ANOVA over {len(entries)} candidates scored at step {until} (gate {gate + 1} of {len(usable)}): what "
        f"sets the best {num_best} apart from all"
    )
    before = max(counts)
    if len(entries) < before:
        note += f"; those {before - len(entries)} that earlier gates stopped are not in it"
    return Importance(tuple(shares), gate, until, len(entries), num_best, note + ".")


def _is_usable(records: Records, entry: Entry) -> bool:
    candidate = records.candidates[entry.candidate]
    return bool(candidate.params) and entry.seed is None and math.isfinite(entry.score)


def _shares(records: Records, entries: Sequence[Entry], scores: Sequence[float], num_best: int) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    study = _study(records, entries, scores)
    evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, num_best / len(entries)))
    shares: dict[str, float] = get_param_importances(study, evaluator=evaluator)
    return {name: share for name, share in shares.items() if math.isfinite(share)}


def _study(records: Records, entries: Sequence[Entry], scores: Sequence[float]) -> optuna.Study:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="minimize")
    finally:
        optuna.logging.set_verbosity(before)
    for entry, score in zip(entries, scores, strict=True):
        candidate = records.candidates[entry.candidate]
        distributions = {
            name: optuna.distributions.json_to_distribution(text) for name, text in candidate.distributions.items()
        }
        trial = optuna.trial.create_trial(params=dict(candidate.params), distributions=distributions, value=score)
        study.add_trial(trial)
    return study
