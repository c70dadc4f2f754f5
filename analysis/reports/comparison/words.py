"""What a comparison says, in plain sentences: the verdict, the chance of a win, the cost, and what stays in doubt.

The verdict is the claim's; doubts repeat what its numbers show.
"""

from __future__ import annotations

import math
from statistics import stdev
from typing import TYPE_CHECKING

from analysis.reports.comparison import bisection as bisection_report
from analysis.reports.comparison.paired import MAX_PAIRS, POWER, pairs_needed
from analysis.reports.tables import counted, decimals, duration, ends, listed, mean_std, number, with_unit
from analysis.stats.claims import MAX_SIGN_FLIP_PAIRS, Claim, Test, can_decide
from analysis.stats.interval import Interval

if TYPE_CHECKING:
    from analysis.reports.comparison.facts import Comparison, Side

_MEANINGFUL = 0.75  # P(A > B) from which on a lead is worth having (Bouthillier et al. 2021, arXiv 2103.03098)
TEST_NAMES = {"sign_flip": "exact sign-flip", "t": "paired t", "e_process": "e-process"}


def lines(comparison: Comparison) -> list[str]:
    """Four to eight lines, the verdict first."""
    sentences = [_verdict(comparison), _chance(comparison), _pairs(comparison), _cost(comparison)]
    if {"a", "b"} <= set(comparison.tests):
        sentences.append(_test_split(comparison))
    if comparison.bisection is not None:
        sentences.append(bisection_report.line(comparison.bisection))
    if comparison.claim.verdict == "undecided":
        sentences.append(_enough(comparison))
    if in_doubt := doubts(comparison):
        sentences.append(f"In doubt: {' '.join(in_doubt)}")
    return sentences


def doubts(comparison: Comparison) -> list[str]:
    """What stays in doubt beyond the width of the interval, each in one sentence."""
    claim, in_doubt = comparison.claim, []
    mean, low, high = difference(comparison)
    if claim.verdict in ("better", "worse"):
        if low <= 0.0 <= high:
            in_doubt.append("The t interval reaches zero although the test does not: few pairs, or far from normal.")
        elif min(abs(low), abs(high)) < comparison.region:
            in_doubt.append(
                "The interval reaches into the region of practical equivalence: it may be too little to matter."
            )
        if 1.0 - _MEANINGFUL < claim.probability_better.value < _MEANINGFUL:
            in_doubt.append(
                f"Neither side wins {_MEANINGFUL:.0%} of the pairs: a difference of means, not of most runs."
            )
    if any(lost(side) for side in (comparison.a, comparison.b)):
        in_doubt.append(
            "A lost seed counts, in the test and in the mean difference, as worse than every run that came through, by "
            "as much as the best and the worst of those are apart."
        )
    if {"a", "b"} <= set(comparison.tests) and mean * (comparison.tests["b"][0] - comparison.tests["a"][0]) < 0.0:
        in_doubt.append("On the test split the difference is the other way round.")
    if comparison.bisection is not None:
        in_doubt += bisection_report.doubts(comparison.bisection)
    return in_doubt


def difference(comparison: Comparison) -> Interval:
    """Mean of B - A, in the objective's own sign."""
    return comparison.claim.difference.times(comparison.sign)


def a_wins(claim: Claim) -> Interval:
    """P(A > B), ties half."""
    p, low, high = claim.probability_better
    return Interval(1.0 - p, 1.0 - high, 1.0 - low)


def needed(comparison: Comparison) -> int | None:
    """Pairs that would be enough for the observed difference; None where that cannot be said.

    Those of the paired t-test, and no fewer than the test in use needs to claim anything at all.
    """
    claim = comparison.claim
    enough = pairs_needed(claim.difference, claim.num_pairs, comparison.alpha)
    if enough is None or comparison.test not in ("sign_flip", "e_process"):
        return enough
    test: Test = "sign_flip" if comparison.test == "sign_flip" else "e_process"
    at_all = next((n for n in range(1, MAX_SIGN_FLIP_PAIRS) if can_decide(n, test, comparison.alpha)), 1)
    return max(enough, at_all)


def value_of(side: Side, seed: int) -> float | None:
    """A seed's best; None where it was lost or never run. A value that is not finite is a loss."""
    value = side.values.get(seed)
    return value if value is not None and math.isfinite(value) else None


def lost(side: Side) -> list[int]:
    """Seeds that diverged or failed."""
    return [seed for seed in side.values if value_of(side, seed) is None]


def pairs_in(comparison: Comparison) -> list[int]:
    """Seeds that have a value on both sides."""
    a, b = comparison.a, comparison.b
    return [seed for seed in a.values if value_of(a, seed) is not None and value_of(b, seed) is not None]


def places(comparison: Comparison) -> int:
    """Decimals that show half the interval with two digits; of the spread between seeds where there is none."""
    half = comparison.claim.difference.half_width
    if math.isfinite(half) and half > 0.0:
        return decimals(half)
    values = [v for side in (comparison.a, comparison.b) for s in side.values if (v := value_of(side, s)) is not None]
    return decimals(stdev(values) if len(values) > 1 else math.nan)


def _verdict(comparison: Comparison) -> str:
    claim = comparison.claim
    a, b = _named("A", comparison.a), _named("B", comparison.b)
    if not claim.num_pairs:
        return f"Undecided whether {b} is better or worse than {a}: no pair of seeds is in."
    mean = difference(comparison)
    digits, level = places(comparison), f"{100.0 * (1.0 - comparison.alpha):g}%"
    words = {
        "better": f"{b} is better than {a}",
        "worse": f"{b} is worse than {a}",
        "equivalent": f"{b} is equivalent to {a} within ±{with_unit(f'{comparison.region:g}', comparison.unit)}",
        "undecided": f"Undecided whether {b} is better or worse than {a}",
    }
    size = with_unit(number(mean.value, digits, signed=True), comparison.unit)
    within = f"{level} interval {ends(mean, digits)}, " if not math.isnan(mean.low) else ""
    return f"{words[claim.verdict]}: {size} ({within}{counted(claim.num_pairs, 'pair')}, {_p_value(comparison)})."


def _p_value(comparison: Comparison) -> str:
    claim, name = comparison.claim, TEST_NAMES.get(comparison.test, comparison.test)
    p = f"p = {claim.p_value:.2g}" if claim.p_value >= 1e-4 else "p < 0.0001"
    return f"{name} {p}" if claim.e_value is None else f"{name} E = {claim.e_value:.3g}, {p}"


def _chance(comparison: Comparison) -> str:
    claim = comparison.claim
    if not claim.num_pairs:
        return "P(A > B), the chance that a run of A beats one of B with the same seed, is not known."
    p, low, high = a_wins(claim)
    lead = f"neither side reaches the {_MEANINGFUL} from which on a lead is worth having"
    if p >= _MEANINGFUL or p <= 1.0 - _MEANINGFUL:
        leader = "A" if p >= _MEANINGFUL else "B"
        lead = f"{leader} reaches the {_MEANINGFUL} from which on a lead is worth having"
        if low <= 0.5 <= high:
            lead += ", but the interval has even chances in it"
    return (
        f"P(A > B) = {p:.2f} ({100.0 * (1.0 - comparison.alpha):g}% interval {low:.2f} to {high:.2f}), the chance that "
        f"a run of A beats one of B with the same seed: {lead}."
    )


def _pairs(comparison: Comparison) -> str:
    claim = comparison.claim
    region = f"±{with_unit(f'{comparison.region:g}', comparison.unit)}" if comparison.region else "none given"
    gone = [
        f"{letter} {_seeds(lost(side))}" for letter, side in (("A", comparison.a), ("B", comparison.b)) if lost(side)
    ]
    ended = "ended because" if claim.decided else "not ended:"
    return (
        f"Pairs: {claim.num_pairs} of at most {claim.num_max}, {ended} {claim.reason}. "
        f"Lost: {'; '.join(gone) or 'none'}. Region of practical equivalence: {region}."
    )


def _seeds(seeds: list[int]) -> str:
    return f"{counted(len(seeds), 'seed')} ({listed(seeds)})"


def _cost(comparison: Comparison) -> str:
    sides = [
        f"{letter} {side.steps:,} steps in {duration(side.seconds)}"
        for letter, side in (("A", comparison.a), ("B", comparison.b))
    ]
    if comparison.bisection is not None:
        sides.append(f"midpoints {sum(midpoint.steps for midpoint in comparison.bisection.midpoints):,} steps")
    return f"Cost in steps and compute time: {', '.join(sides)}."


def _test_split(comparison: Comparison) -> str:
    digits = places(comparison)
    scores = [f"{side.upper()} {mean_std(*comparison.tests[side], digits)}" for side in ("a", "b")]
    return f"On the test split: {with_unit(', '.join(scores), comparison.unit)} (mean ± standard deviation over seeds)."


def _enough(comparison: Comparison) -> str:
    claim, enough = comparison.claim, needed(comparison)
    if enough is None:
        if claim.num_pairs < 2 or math.isnan(claim.difference.low):
            return "What would be needed cannot be estimated: that takes two pairs or more."
        if not claim.difference.value:
            return "What would be needed cannot be estimated: the mean difference is zero."
        return f"To find a difference as small as this one would take over {MAX_PAIRS} pairs: an estimate."
    rest = "" if enough <= MAX_SIGN_FLIP_PAIRS else f" (sign flips take at most {MAX_SIGN_FLIP_PAIRS})"
    return (
        f"Were the effect what it looks like now, a paired t-test would show it with power {POWER:g} from about "
        f"{enough} pairs on{rest}: an estimate, for the effect is itself uncertain and may be none at all."
    )


def _named(letter: str, side: Side) -> str:
    return letter if side.name in ("", letter) else f"{letter} ({side.name})"
