"""What a run's own curves would have wished of its plan: where gates stand, how many they let through, where seeds go.

Nothing is decided from it: a next plan may be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from analysis.search.seed_variance import seed_variance
from analysis.stats.agreement import Agreement, LearnedShare, agreement
from tune_rh.errors import RunError
from tune_rh.plan.kinds import Search
from tune_rh.plan.stages import learning
from tune_rh.record.gate import Gate
from tune_rh.record.history import History
from tune_rh.record.members import Candidate
from tune_rh.results.reading import Reading

_FEW = 4
"""Fewer candidates that can be compared say nothing."""
_LASTS = 0.8
"""From this correlation on ranks are said to last."""
_MUCH, _LITTLE = 0.5, 0.2
"""Shares of the variance from which, and up to which, seeds are worth a sentence."""


def advise(reading: Reading) -> list[str]:
    """Sentences, in the order of the plan; at least one.

    Raises:
        RunError: it is of a race or a comparison, whose gates choose among no candidates.
    """
    history = reading.history
    plan = history.plan
    if not isinstance(plan, Search):
        raise RunError(f"{plan.name} is a {plan.kind}: advice is about the gates and seeds of a search")
    said = [] if reading.run.is_finished else [f"{plan.name} is not finished: this is of what it has seen so far."]
    return [*said, *_about_gates(plan, history), *_about_steps(plan, history), *_about_seeds(reading)]


def _about_gates(plan: Search, history: History) -> Iterator[str]:
    """How many each gate let through, and how many are expected to have given the best winner for the same steps."""
    if not plan.last_stage:
        yield "There was one stage: no gate could save anything."
    etas = [stage.eta or plan.eta for stage in plan.stages[:-1]]
    shares: list[LearnedShare] = []
    later = 1.0
    for k in reversed(range(plan.last_stage)):
        start = learning(plan.stages, etas, plan.num_candidates, plan.budget.max_steps, k)
        share = LearnedShare(1.0 / etas[k], start.prior, start.cost, start.num, start.most)
        share.learn(max(1, len(history.gates[k].order)), *moved(history.gates[k], history.gates[k + 1]), later)
        later = share.to_end
        shares.insert(0, share)
    passed = 1.0
    for k, (gate, share) in enumerate(zip(history.gates, shares, strict=False)):
        passed = share.choose(passed)
        stage, num, pairs = plan.stages[k], len(gate.order), share.agreement.num_pairs
        where = (
            f"Gate {k + 1} (step {stage.until_step:,}, {stage.num_seeds} {'seed' if stage.num_seeds == 1 else 'seeds'})"
        )
        if pairs < _FEW:
            yield f"{where}: {pairs} were scored here and at the next gate; it takes {_FEW} to say anything."
            continue
        best = max(1, round(share.share * num))
        yield (
            f"{where}: ranks agree by {_shown(share.agreement)} with those at the next gate. It let "
            f"{gate.num_promoted} of {num} through; for the same steps {best} would have been best "
            f"(eta = {1.0 / share.share:.2g})."
        )


def _about_steps(plan: Search, history: History) -> Iterator[str]:
    """From which step on the candidates that ran to the end stood as they did there."""
    last = plan.stages[-1].until_step
    finished = [c for c in history.candidates.values() if not c.is_reference and _value(c, last) is not None]
    if len(finished) < _FEW:
        yield f"{len(finished)} candidates ran to the end: too few to say from which step on they stood as there."
        return
    end = [_value(candidate, last) for candidate in finished]
    for step in range(plan.eval_every, last, plan.eval_every):
        here = [_value(candidate, step) for candidate in finished]
        if None in here:
            continue
        found = agreement(_rank_correlation(here, end), len(finished), 1.0, _LASTS, 1e-9)
        if found.value >= _LASTS:
            yield (
                f"The {len(finished)} candidates that ran to the end stood at step {step:,} of {last:,} much as there "
                f"(ranks agree by {_shown(found)}): an earlier gate decides on less, and a later one pays for what is "
                "known. They are those that gates let through; over all candidates ranks last from earlier on."
            )
            return
    yield (
        f"The {len(finished)} candidates that ran to the end stood nowhere before it as they did there: let more come "
        f"to the end, and put further seeds at step {last:,}."
    )


def _about_seeds(reading: Reading) -> Iterator[str]:
    """Where seeds explained much, and where little."""
    for row in seed_variance(reading.run):
        share = row.seed_share.value
        if math.isnan(share):
            continue
        where = f"Gate {row.gate + 1} (step {row.until_step:,}): seeds explain {share:.0%} of what candidates differ by"
        if share >= _MUCH:
            yield f"{where}. A choice made there needs more seeds, or is better made later."
        elif share <= _LITTLE:
            close = "" if math.isnan(row.best_share) else f", {row.best_share:.0%} among the best third"
            yield f"{where}{close}. One seed would have done to cut the rest; further ones are for the best."


def moved(gate: Gate, later: Gate) -> tuple[int, float]:
    """How many were ranked at both gates, and by how many places they moved (root mean square)."""
    here = {rank.entry: place for place, rank in enumerate(r for r in gate.order if later.has(r.entry))}
    there = [rank.entry for rank in later.order if rank.entry in here]
    if not there:
        return 0, 0.0
    return len(there), math.sqrt(fmean((here[entry] - place) ** 2 for place, entry in enumerate(there)))


def _value(candidate: Candidate, step: int) -> float | None:
    """Mean over the seeds that were read at ``step`` of the best value up to it; None if there is none."""
    found = []
    for member in candidate.members.values():
        curve = member.curve
        values = [
            value for at, value in zip(curve.steps, curve.values, strict=True) if at <= step and math.isfinite(value)
        ]
        if curve.steps and curve.steps[-1] >= step and values and not member.lost:
            found.append(min(values))
    return fmean(found) if found else None


def _rank_correlation(one: Sequence[float | None], other: Sequence[float | None]) -> float:
    """Spearman's, ties in the order of entry."""
    places = [sorted(range(len(values)), key=lambda i, of=values: (of[i], i)) for values in (one, other)]  # type: ignore[misc]
    rank = {index: place for place, index in enumerate(places[1])}
    num = len(one)
    return 1.0 - 6.0 * sum((rank[index] - place) ** 2 for place, index in enumerate(places[0])) / (num * (num**2 - 1))


def _shown(found: Agreement) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}; {found.num_pairs} seen)"
