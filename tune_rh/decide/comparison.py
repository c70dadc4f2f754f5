"""A against B by pairs of seeds, and the midpoints between them: what is known, and what is still wanted. Pure.

The control is A, the first preset B; every other candidate is a midpoint: A with some keys as in B. Not here: the tests
(`analysis.stats.claims`), the search over sets of keys (`tune_rh.decide.ddmin`), running anything. Lower is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Any

from pydantic import ValidationError

from analysis.stats.claims import Claim, judge
from analysis.stats.interval import Interval, mean_interval
from trainables.registry import build_config, get_family
from tune_rh.decide.ddmin import Keys, Outcome, State, advance, differing, grafted, groups
from tune_rh.decide.halving import after_report, run_first
from tune_rh.decide.scheduler import AskCandidate, Decision, Finish, Park, Stop, Verdict, Wait
from tune_rh.plan.kinds import Comparison
from tune_rh.record.events import MemberId
from tune_rh.record.history import History
from tune_rh.record.members import TEST, Candidate, Pending

PATIENCE = "patience_steps"
"""The one key that is no config field: a variant's own patience."""
_MIDPOINT_ALPHA = 0.1
"""Chance that a midpoint which lies halfway is called before its last seed; four seeds can reach it."""


@dataclass(frozen=True)
class Pairs:
    """Values of both sides for the first seeds in order, as far as both sides have them.

    A lost seed is beyond the worst of A's and B's that are in (`_lost_value`); ``lost`` counts them, A's first.
    """

    seeds: tuple[int, ...]
    a: tuple[float, ...]
    b: tuple[float, ...]
    lost: tuple[int, int]

    @property
    def differences(self) -> tuple[float, ...]:
        """B minus A, seed by seed: negative is better."""
        return tuple(b - a for a, b in zip(self.a, self.b, strict=True))


@dataclass(frozen=True)
class ComparisonScheduler:
    """Pairs of A and B seed by seed, then the midpoints of a bisection; a member that can tell nothing more is left."""

    plan: Comparison

    def next(self, history: History, prefer: MemberId | None = None) -> Decision:
        """In this order: A and B, wanted members in the order of seeds, a midpoint, wait, finish."""
        if len(history.candidates) < 2:
            return AskCandidate()
        pending = [entry for entry in history.pending if self._is_wanted(history, entry)]
        if pending:
            return run_first(self.plan, pending, prefer)
        if next_midpoint(history) is not None:
            return AskCandidate()
        return Wait() if history.running else Finish()

    def verdict(self, history: History, member: MemberId) -> Verdict:
        """Parked where the comparison is decided without it; what it has come to is no result and is not paired."""
        verdict = after_report(history, member)
        if not isinstance(verdict, Stop) and _is_decided(history, member):
            return Park("the comparison is decided without it")
        return verdict

    def _is_wanted(self, history: History, entry: Pending) -> bool:
        """Test is read of A and B alone."""
        if entry.kind == TEST:
            return history.candidates[entry.member.candidate].index < 2
        return not _is_decided(history, entry.member)


def sides(history: History) -> tuple[Candidate, Candidate]:
    """A and B, which come before all else."""
    return history.candidate_at(0), history.candidate_at(1)


def midpoints(history: History) -> list[Candidate]:
    """What has been made between A and B, in order."""
    return list(history.candidates.values())[2:]


def pairs(history: History, a: Candidate, b: Candidate) -> Pairs:
    """The pairs that are in. A later seed that came in early waits for those before it: looks are in a fixed order."""
    seeds: list[int] = []
    values: tuple[list[float], list[float]] = ([], [])
    lost = [0, 0]
    for seed in history.plan.stage_seeds(0):
        members = [side.members[seed] for side in (a, b)]
        if not all(map(history.has_reached, members)):
            break
        seeds.append(seed)
        for i, member in enumerate(members):
            lost[i] += member.value is None
            values[i].append(_lost_value(history) if member.value is None else member.value)
    return Pairs(tuple(seeds), tuple(values[0]), tuple(values[1]), (lost[0], lost[1]))


def claim(history: History) -> Claim:
    """What can be claimed of B against A now."""
    compare = _plan(history).compare
    seen = pairs(history, *sides(history)) if len(history.candidates) > 1 else Pairs((), (), (), (0, 0))
    # Equivalence is claimed only where every seed came through.
    region = 0.0 if any(seen.lost) else compare.region
    return _cached(seen.differences, history.plan.stages[0].num_seeds, compare.test, compare.alpha, region)


def outcome(history: History, midpoint: Candidate) -> Outcome | None:
    """Whether a midpoint carries the regression; None while more seeds of it are wanted."""
    seen = midpoint_claim(history, midpoint)
    if not seen.decided:
        return None
    if seen.verdict == "undecided":
        return "carries" if seen.difference.value > 0 else "clean"
    # Not the mean: seeds that were under way when it was called may still come in, and change nothing.
    return "carries" if seen.verdict == "worse" else "clean"


def midpoint_claim(history: History, midpoint: Candidate) -> Claim:
    """A midpoint against the point halfway between A and B, seed by seed: above zero it is nearer to B.

    An e-process, so that a clear midpoint ends early; at the last seed the mean decides, and the claim says how surely.
    """
    to_a, to_b = (pairs(history, side, midpoint).differences for side in sides(history))
    halfway = tuple((x + y) / 2 for x, y in zip(to_a, to_b, strict=False))
    return _cached(halfway, history.plan.stages[0].num_seeds, "e_process", _MIDPOINT_ALPHA, 0.0)


def position(history: History, midpoint: Candidate) -> Interval:
    """Where a midpoint lies between A (0) and B (1): the mean over its seeds with its 95% interval.

    The interval is Student's t on the seeds' distances from A, in units of the mean difference of B and A.
    """
    a, b = sides(history)
    whole = fmean(pairs(history, a, b).differences)
    to_a = pairs(history, a, midpoint).differences
    return mean_interval(to_a).times(1.0 / whole if whole else math.nan)


def bisection(history: History) -> State | None:
    """Where the search for the guilty keys stands; None where there is none: not asked for, or B is not worse."""
    plan = _plan(history)
    if not plan.compare.bisect or not _is_over(history) or claim(history).verdict != "worse":
        return None
    known: dict[Keys, Outcome] = {}
    for midpoint in midpoints(history):
        seen = outcome(history, midpoint)
        if seen is not None:
            known[keys_of(history, midpoint)] = seen
    parts = groups(suspects(history), lambda keys: _is_valid(history, keys))
    while True:
        state = advance(parts, known)
        invalid = [keys for keys in state.wanted if not _is_valid(history, keys)]
        if not invalid:
            return state
        known.update((keys, "invalid") for keys in invalid)


def next_midpoint(history: History) -> Keys | None:
    """The next set of keys to take from B; None while none is needed, or where ``max_probes`` have been run."""
    state, made = bisection(history), midpoints(history)
    if state is None or len(made) >= _plan(history).compare.max_probes:
        return None
    known = {keys_of(history, midpoint) for midpoint in made}
    return next((keys for keys in state.wanted if keys not in known), None)


def midpoint_fields(history: History, keys: Keys) -> dict[str, Any]:
    """What the midpoint is: config fields, and `PATIENCE` where it has one of its own."""
    a, b = map(fields, sides(history))
    return grafted(a, b, keys)


def keys_of(history: History, candidate: Candidate) -> Keys:
    """The keys that a midpoint has from B."""
    own, of_b = fields(candidate), fields(sides(history)[1])
    return frozenset(key for key in suspects(history) if own.get(key) == of_b.get(key))


def suspects(history: History) -> tuple[str, ...]:
    """The keys in which A and B differ."""
    return differing(*map(fields, sides(history)))


def fields(candidate: Candidate) -> dict[str, Any]:
    """A candidate's config fields, and `PATIENCE` where it has one of its own."""
    patience = candidate.added.patience_steps
    return {**candidate.added.config, **({PATIENCE: patience} if patience else {})}


def _plan(history: History) -> Comparison:
    assert isinstance(history.plan, Comparison)
    return history.plan


def _is_over(history: History) -> bool:
    """Whether A and B need no more seeds. Where B is worse a bisection wants all: midpoints are paired with both."""
    seen = claim(history)
    bisected = _plan(history).compare.bisect and seen.verdict == "worse"
    return seen.num_pairs == seen.num_max or (seen.decided and not bisected)


def _is_decided(history: History, member: MemberId) -> bool:
    """Whether the member cannot tell anything any more."""
    candidate = history.candidates[member.candidate]
    return outcome(history, candidate) is not None if candidate.index > 1 else _is_over(history)


def _is_valid(history: History, keys: Keys) -> bool:
    config = midpoint_fields(history, keys)
    config.pop(PATIENCE, None)
    try:
        build_config(get_family(history.plan.family), written=[config])
    except ValidationError:
        return False
    return True


def _lost_value(history: History) -> float:
    """Beyond the worst of A's and B's that are in, by as much as the best of them is before it.

    As bad as the worst would be a tie where B is lost throughout and A's seeds are alike. What runs is left out: it
    stands high at first, and would change what has been concluded already.
    """
    members = [m for side in sides(history) for m in side.members.values() if history.has_reached(m)]
    values = [member.value for member in members if member.value is not None]
    return max(values) + (max(values) - min(values) or 1.0) if values else 0.0


@lru_cache(maxsize=256)
def _cached(differences: tuple[float, ...], num_max: int, test: Any, alpha: float, region: float) -> Claim:
    # Asked again at every report; the sign-flip test enumerates.
    return judge(differences, num_max, test=test, alpha=alpha, region=region)
