"""Modified Kneser-Ney n-grams over a stream of tokens, all orders at once, by sorting instead of dictionaries.

Interpolated, as S. F. Chen and J. Goodman define it (An empirical study of smoothing techniques for language modeling,
1998, section 3); unigrams are interpolated with the uniform distribution, so that the probabilities of all tokens sum
to one after any context. An n-gram may begin in one document and end in the next, as a sequence of training may.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainables.arrays import Array

Tokens = NDArray[np.integer]
_Ints = NDArray[np.int64]

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where counts do not allow an estimate, as KenLM has them (Heafield et al. 2013)."""


@dataclass(frozen=True)
class _Level:
    """One order with one kind of count: raw ones for the highest order of a model, continuations for lower ones.

    Attributes:
        discounted: (types,) count less its discount, by n-gram.
        freed: (contexts,) what discounts took away after each context, for the order below.
        total: (contexts,) counts after each context; 0 if it was never seen.
    """

    discounted: Array
    freed: Array
    total: Array


@dataclass(frozen=True)
class _Order:
    """All n-grams of one length.

    Attributes:
        keys: (types,) sorted: the number of the n-gram without its last token, times the vocabulary, plus that token.
            The place of a key is the n-gram's number.
        raw: counts as they are.
        continuation: how many different tokens precede each n-gram; None for the longest.
    """

    keys: _Ints
    raw: _Level
    continuation: _Level | None


class NGrams:
    """Counts of all n-grams of a stream of tokens up to a length.

    Raises:
        ValueError: the stream is too short, or has a token outside the vocabulary.
    """

    def __init__(self, tokens: Tokens, vocab_size: int, longest: int) -> None:
        if len(tokens) < longest:
            raise ValueError(f"{len(tokens)} tokens are too few for n-grams of {longest}")
        if int(tokens.max()) >= vocab_size:
            raise ValueError(f"token {int(tokens.max())} is outside a vocabulary of {vocab_size}")
        self.vocab_size = vocab_size
        self.orders: list[_Order] = []
        keys = np.zeros(1, dtype=np.int64)
        numbers = np.zeros(len(tokens) + 1, dtype=np.int64)  # of the n-gram that ends at each place: the empty one
        for length in range(1, longest + 1):
            shorter, num_shorter = numbers, len(keys)
            ends = shorter[:-1] * vocab_size + tokens[length - 1 :]
            keys, numbers, counts = np.unique(ends, return_inverse=True, return_counts=True)
            if self.orders:
                without_first = np.empty(len(keys), dtype=np.int64)
                without_first[numbers] = shorter[1:]
                self._continue(np.bincount(without_first, minlength=num_shorter))
            self.orders.append(_Order(keys, _level(counts, keys // vocab_size, num_shorter), None))

    def _continue(self, preceding: _Ints) -> None:
        """Give the longest order so far its continuation counts."""
        order = self.orders[-1]
        level = _level(preceding, order.keys // self.vocab_size, len(order.raw.total))
        self.orders[-1] = replace(order, continuation=level)

    def probabilities(self, rows: Tokens) -> list[Array]:
        """What n-gram models of every length give to each token of ``rows`` after those before it in its row.

        Returns:
            For n = 1, 2, ...: (rows, length - 1), of all tokens but the first.
        """
        rows = rows.astype(np.int64)
        context = np.zeros(rows.shape, dtype=np.int64)  # of the n - 1 tokens before; -1: never seen, or not there
        lower = np.full(rows.shape, 1.0 / self.vocab_size)
        probabilities = []
        for order in self.orders:
            number = _find(order.keys, np.where(context < 0, -1, context * self.vocab_size + rows))
            probabilities.append(_interpolated(order.raw, context, number, lower)[:, 1:])
            if order.continuation is not None:
                lower = _interpolated(order.continuation, context, number, lower)
                context = np.concatenate([np.full((len(rows), 1), -1), number[:, :-1]], axis=1)
        return probabilities


def discounts(counts: _Ints) -> tuple[float, float, float]:
    """What is taken from counts of 1, of 2, and of 3 or more (Chen and Goodman 1998, equation 26).

    `FALLBACK` where no n-gram has one of the counts 1 to 4, or where the estimate would take more than there is.
    """
    n1, n2, n3, n4 = (int(number) for number in np.bincount(np.minimum(counts, 5), minlength=6)[1:5])
    if not (n1 and n2 and n3 and n4):
        return FALLBACK
    y = n1 / (n1 + 2.0 * n2)
    estimates = (1.0 - 2.0 * y * n2 / n1, 2.0 - 3.0 * y * n3 / n2, 3.0 - 4.0 * y * n4 / n3)
    sound = all(0.0 <= taken <= most for taken, most in zip(estimates, (1.0, 2.0, 3.0), strict=True))
    return estimates if sound else FALLBACK


def _level(counts: _Ints, contexts: _Ints, num_contexts: int) -> _Level:
    """Counts after discounting, by n-gram and by context."""
    taken = np.array([0.0, *discounts(counts)])[np.minimum(counts, 3)]
    freed = np.bincount(contexts, weights=taken, minlength=num_contexts)
    total = np.bincount(contexts, weights=counts, minlength=num_contexts)
    return _Level(counts - taken, np.asarray(freed, dtype=np.float64), np.asarray(total, dtype=np.float64))


def _interpolated(level: _Level, context: _Ints, number: _Ints, lower: Array) -> Array:
    """Discounted share plus what was freed times the lower order; the lower order alone after an unseen context."""
    total = np.where(context < 0, 0.0, level.total[context])
    seen = np.where(number < 0, 0.0, level.discounted[number]) + level.freed[context] * lower
    return np.where(total > 0.0, seen / np.where(total > 0.0, total, 1.0), lower)


def _find(keys: _Ints, wanted: _Ints) -> _Ints:
    """The place of each wanted key, -1 where there is none."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)
