"""How well ranks at one gate foretell ranks further on, and which share of candidates it is then best to let through.

Pure functions of numbers, standard library only. Scores of candidates are taken for normal; a correlation is that of
two scores of one candidate, positive where the better stays the better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

_NORMAL = NormalDist()
_Z95 = 1.959964
_MOST = 0.999
"""Correlations are kept below it: at 1 Fisher's transform is infinite."""
_LOWEST, _HIGHEST, _CHOICES = 0.7, 2.0, 9
"""How many go on is between these times as many as usual, in so many steps."""


class Agreement(NamedTuple):
    """A correlation between two gates, over all candidates that come to the first.

    Attributes:
        value, low, high: the estimate and its 95% interval.
        num_pairs: candidates that were seen at both.
    """

    value: float
    low: float
    high: float
    num_pairs: int


class LearnedShare:
    """The share of candidates that a gate lets through, learnt in the run.

    Over all gates up to this one together, between 0.7 times and twice as many go on as by the usual shares.

    Args:
        usual: share where nothing is learnt.
        prior: correlation with scores at the next gate, before any candidate was seen at both.
        cost: expected steps of a candidate that goes on, over those of one more that comes to the gate.
        num: candidates that are expected to come to the gate if every gate keeps to its usual share.
        most: how many could come at the most, however few go on; inf where as many are drawn as steps allow.
        weight: candidates that the prior is worth.
    """

    def __init__(self, usual: float, prior: float, cost: float, num: float, most: float, weight: float = 6.0) -> None:
        self._usual, self._prior, self._cost, self._num, self._most = usual, prior, cost, num, most
        self._weight = weight
        self.share = usual
        self.agreement = agreement(0.0, 0, 1.0, prior, weight)
        self.to_end = max(0.0, prior)
        self._seen: tuple[float, ...] = ()
        self._chosen_for: tuple[float, ...] = ()

    def expect(self, cost: float, num: float, most: float) -> None:
        """Take in what is expected now, where a plan has changed; arguments as for the class."""
        self._cost, self._num, self._most = cost, num, most
        self._chosen_for = ()

    def learn(self, num: int, num_pairs: int, moved: float, later: float) -> None:
        """Estimate the agreement anew.

        Args:
            num: candidates that have come to the gate, at least 1.
            num_pairs: how many of them have come to the next one.
            moved: root mean square number of places by which those moved, among themselves.
            later: correlation of scores at the next gate with those at the end.
        """
        if (num, num_pairs, moved, later) == self._seen:
            return
        self._seen = num, num_pairs, moved, later
        observed = 1.0 - 6.0 * moved**2 / (num_pairs**2 - 1) if num_pairs > 1 else 0.0
        seen = min(1.0, max(num_pairs, 1) / num)
        self.agreement = agreement(observed, num_pairs, seen, self._prior, self._weight)
        self.to_end = max(0.0, self.agreement.value) * later

    def choose(self, before: float) -> float:
        """Choose the share anew.

        Args:
            before: candidates that the gates before this one let through together, over those that they usually would.

        Returns:
            The same of this gate and those before it.
        """
        if (self.to_end, before) != self._chosen_for:
            self._chosen_for = self.to_end, before
            ratio = (_HIGHEST / _LOWEST) ** (1.0 / (_CHOICES - 1))
            factors = (_LOWEST * ratio**i / before for i in range(_CHOICES))
            choices = sorted({min(1.0, self._usual * factor) for factor in factors}, reverse=True)
            self.share = best_share(self.to_end, self._num, self._most, self._cost, self._usual, choices)
        return before * self.share / self._usual


def agreement(observed: float, num_pairs: int, share: float, prior: float, weight: float) -> Agreement:
    """Estimate the correlation over all candidates from the best ``share``, who alone were seen at both gates.

    Among those chosen by their score at the first gate that score varies less, so a correlation is smaller than over
    all: Pearson's and Lawley's correction for selection (Lawley 1943), with the variance of the best ``share`` of a
    normal. The prior is worth ``weight`` pairs, and is weighed in on Fisher's scale, among those that were chosen. Of a
    rank correlation r there, the variance is (1 + r^2 / 2) / (n - 3) (Bonett & Wright 2000), and 2 sin(pi r / 6) is
    Pearson's of the normal that it comes from.

    Args:
        observed: rank correlation among those that were seen at both gates; not looked at below four of them.
        num_pairs: how many they are.
        share: of those that came to the first gate, in (0, 1].
        prior: correlation over all candidates, where none was seen.
        weight: pairs that the prior is worth, above 0.
    """
    kept = _kept_variance(share)
    told = max(num_pairs - 3, 0) / (1.0 + observed * observed / 2.0)
    centre = weight * _fisher(_selected(prior, kept))
    if told:
        centre += told * _fisher(2.0 * math.sin(math.pi * observed / 6.0))
    centre /= weight + told
    width = _Z95 / math.sqrt(weight + told)
    value, low, high = (_unselected(math.tanh(z), kept) for z in (centre, centre - width, centre + width))
    return Agreement(value, low, high, num_pairs)


def best_share(
    correlation: float, num: float, most: float, cost: float, usual: float, shares: Sequence[float]
) -> float:
    """Which of ``shares`` has the best expected winner for the same steps.

    A candidate costs 1 up to the gate and ``cost`` more if it goes on; as many steps are spent as letting the
    ``usual`` share of ``num`` candidates through would take. Letting fewer through leaves steps for more candidates.
    Expected is the best true value among those that go on, from two bounds of which the larger counts: the mean of the
    best share by score (Cochran 1951) and above it the largest of so many normals with the variance that is left; and
    the true value of the very best by score.

    Args:
        correlation: between the score at the gate and the value in the end.
        num: candidates that come to the gate at the usual share, at least 1.
        most: how many can come at the most.
        cost: above 0, in costs of a candidate up to the gate.
        usual: in (0, 1].
        shares: those to choose from, each in (0, 1]; of equally good ones the first is taken.
    """
    budget = num * (1.0 + cost * usual)

    def expected(share: float) -> float:
        tried = max(min(most, budget / (1.0 + cost * share)), 1.0)
        # Those that go on hold the best of every smaller share as well.
        chosen = (_expected_best(correlation, tried, part) for part in shares if part <= share)
        return round(max(correlation * _expected_largest(tried), *chosen), 9)

    return max(shares, key=expected)


def _expected_best(correlation: float, tried: float, share: float) -> float:
    left = math.sqrt(1.0 - correlation * correlation * (1.0 - _kept_variance(share)))
    return correlation * _tail_mean(share) + left * _expected_largest(max(tried * share, 1.0))


@lru_cache(maxsize=1024)
def _tail_mean(share: float) -> float:
    """Mean of the best ``share`` of a standard normal (the larger the better)."""
    return 0.0 if share >= 1.0 else _NORMAL.pdf(_NORMAL.inv_cdf(1.0 - share)) / share


@lru_cache(maxsize=1024)
def _kept_variance(share: float) -> float:
    """Variance of the best ``share`` of a standard normal."""
    if share >= 1.0:
        return 1.0
    tail = _tail_mean(share)
    return 1.0 - tail * (tail - _NORMAL.inv_cdf(1.0 - share))


def _expected_largest(num: float) -> float:
    """Expected largest of ``num`` standard normals, not below 1 of them (Blom 1958; within 0.02)."""
    return _NORMAL.inv_cdf((num - 0.375) / (num + 0.25))


def _fisher(correlation: float) -> float:
    return math.atanh(min(_MOST, max(-_MOST, correlation)))


def _selected(correlation: float, kept: float) -> float:
    """A correlation over all, as it is among those whose first score has ``kept`` of its variance."""
    squared = correlation * correlation
    return correlation * math.sqrt(kept / (1.0 - squared * (1.0 - kept)))


def _unselected(correlation: float, kept: float) -> float:
    """The inverse of `_selected`."""
    squared = correlation * correlation
    return correlation / math.sqrt(squared + kept * (1.0 - squared))
