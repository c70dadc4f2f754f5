"""Which of the keys that two configs differ in carry a regression: delta debugging (ddmin) over midpoints, pure.

Given A, the worse B, and the outcomes of the midpoints known so far (a midpoint is A with some keys as in B), it says
which midpoint is needed next, and in the end the minimal sets of keys that carry the regression. Standard library only;
the answer is a function of the outcomes, not of the order in which they came. It judges no midpoint, runs none and
keeps nothing.

Source: A. Zeller and R. Hildebrandt, Simplifying and Isolating Failure-Inducing Input (IEEE TSE 28(2), 2002), figure 4
and section 3.2. Two choices where the paper leaves one: after a reduction to a complement its parts stay as they are
(so those tested are not tested again), and finer parts are halves of the parts, not a new split of the whole. One
addition: what is left without the set found is run too, and searched if it carries the regression on its own.

No outcome is inferred from another one: keys may act only together, and may cancel each other, so neither a superset
of a set that carries it nor a subset of a clean one is taken as known.

Midpoints needed with six keys and outcomes without noise, the check of what is left included (mean and most over all
placements): one guilty key 4.8 and 6; two that act only together 11.9 and 19, three 18.4 and 25; two that each suffice
8.6 and 10, three 12.2 and 14.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, combinations
from typing import Any, Literal

Keys = frozenset[str]
Outcome = Literal["carries", "clean", "invalid"]
"""Of a midpoint: it shows the regression, it does not, or A with these keys from B is no valid config."""

_Part = tuple[Keys, ...]
_MAX_JOINED = 3  # units joined at once: pairs, then triples


@dataclass(frozen=True)
class State:
    """Where the search stands.

    Attributes:
        wanted: midpoints whose outcomes are not known: the first is needed now, each further one if those before it do
            not carry the regression. Empty when the search is done.
        remaining: the smallest set known to carry the regression on its own, of the cause now sought or found last.
        causes: disjoint sets found so far, in the order found. Each carries the regression, and none of its groups can
            be left out.
        rest_carries: whether what is left without the causes still carries it; None while that is not known, and for
            good if it is no valid config. When done it is False or None.
        at_most: bound on the outcomes still needed for the present cause and the check of what is left after it; a
            further cause opens a new count.
    """

    wanted: tuple[Keys, ...]
    remaining: Keys
    causes: tuple[Keys, ...]
    rest_carries: bool | None
    at_most: int


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, ...]:
    """Sorted keys whose values are not equal, or that only one has. Flat: a nested mapping counts as one value."""
    missing = object()
    return tuple(sorted(key for key in a.keys() | b.keys() if a.get(key, missing) != b.get(key, missing)))


def grafted(a: Mapping[str, Any], b: Mapping[str, Any], keys: Keys) -> dict[str, Any]:
    """``a`` with ``keys`` as they are in ``b``; a key that ``b`` lacks is removed. Values are not copied.

    Raises:
        ValueError: a key is in neither.
    """
    unknown = keys - a.keys() - b.keys()
    if unknown:
        raise ValueError(f"keys {sorted(unknown)} are in neither config")
    kept = {key: value for key, value in a.items() if key not in keys or key in b}
    return kept | {key: value for key, value in b.items() if key in keys}


def groups(keys: Sequence[str], is_valid: Callable[[Keys], bool]) -> tuple[Keys, ...]:
    """Join keys that cannot be changed alone.

    A group should build on its own, and the rest without it. Where one does not, it is joined with the first one, else
    two, others after which both do. Where none help, it stays as it is, and its midpoints will be invalid.

    Args:
        keys: those that differ; their order does not matter.
        is_valid: whether A with these keys from B is a valid config. Not asked of the empty set and of all keys.

    Returns:
        A partition of the keys, ordered by the first key of each group.
    """
    whole = frozenset(keys)

    def stands(group: Keys) -> bool:
        return all(part in (whole, frozenset()) or is_valid(part) for part in (group, whole - group))

    joined = [frozenset({key}) for key in sorted(whole)]
    for key in sorted(whole):
        own = next(group for group in joined if key in group)
        if stands(own):
            continue
        others = [group for group in joined if group is not own]
        partners = chain.from_iterable(combinations(others, size) for size in range(1, _MAX_JOINED))
        union = next((found for found in (own.union(*some) for some in partners) if stands(found)), own)
        joined = sorted([*(group for group in joined if not group <= union), union], key=min)
    return tuple(joined)


def advance(groups: Sequence[Keys], outcomes: Mapping[Keys, Outcome]) -> State:
    """Replay the search over known outcomes as far as they go.

    Args:
        groups: disjoint sets of keys, each taken from B as one; their order is that of the search.
        outcomes: by the keys taken from B. The whole is known to carry the regression and the empty set to be clean.
            An invalid midpoint counts as one that does not carry it (the unresolved outcome of the paper).

    Raises:
        ValueError: no groups, an empty one, or two that overlap.
    """
    whole: Keys = frozenset().union(*groups)
    if not whole or not all(groups) or sum(map(len, groups)) != len(whole):
        raise ValueError(f"groups {[sorted(group) for group in groups]}: at least one, none empty, no two may overlap")
    known: Mapping[Keys, Outcome] = {**outcomes, frozenset(): "clean", whole: "carries"}
    causes: list[Keys] = []
    rest, remaining = whole, whole
    while known.get(rest) == "carries":
        parts, wanted = _reduce(tuple(group for group in groups if group <= rest), known)
        remaining = frozenset().union(*chain.from_iterable(parts))
        if wanted:
            at_most = len(wanted) + _most_after(tuple(sorted(map(len, parts)))) + 1
            return State(wanted, remaining, tuple(causes), True if causes else None, at_most)
        causes.append(remaining)
        rest -= remaining
    if rest not in known:
        return State((rest,), remaining, tuple(causes), None, 1)
    return State((), remaining, tuple(causes), None if known[rest] == "invalid" else False, 0)


def _reduce(groups: _Part, known: Mapping[Keys, Outcome]) -> tuple[tuple[_Part, ...], tuple[Keys, ...]]:
    """ddmin within ``groups``, known to carry it: the parts it has come to, and midpoints wanted (none when done)."""
    parts = _halves((groups,))
    while True:
        wanted: list[Keys] = []
        going_on = _halves(parts)
        for midpoint, reduced in _level(parts):
            if midpoint not in known:
                wanted.append(midpoint)
            elif known[midpoint] == "carries":
                going_on = reduced
                break
        if wanted or going_on == parts:
            return parts, tuple(wanted)
        parts = going_on


def _level(parts: tuple[_Part, ...]) -> Iterator[tuple[Keys, tuple[_Part, ...]]]:
    """Each midpoint of one granularity, with the parts to go on with should it carry the regression."""
    for part in parts:
        yield frozenset().union(*part), _halves((part,))
    if len(parts) > 2:  # of two parts each is the other's complement
        for part in parts:
            others = tuple(other for other in parts if other is not part)
            yield frozenset().union(*chain.from_iterable(others)), others


def _halves(parts: tuple[_Part, ...]) -> tuple[_Part, ...]:
    halved = (half for part in parts for half in (part[: (len(part) + 1) // 2], part[(len(part) + 1) // 2 :]))
    return tuple(half for half in halved if half)


@cache
def _most_after(sizes: tuple[int, ...]) -> int:
    """Bound on the midpoints that ddmin needs after a level with parts of these sizes, whatever comes out of it."""
    num = len(sizes)
    bounds = [0]
    finer = tuple(sorted(half for size in sizes for half in ((size + 1) // 2, size // 2) if half))
    if len(finer) > num:
        # Parts of one group do not split: those and their complements are known.
        split = 2 * (len(finer) - num)
        bounds.append((2 * split if len(finer) > 2 else split) + _most_after(finer))
    if num > 2:
        for size in set(sizes):
            others = list(sizes)
            others.remove(size)
            bounds.append((num - 1 if num > 3 else 0) + _most_after(tuple(others)))
    # A part that carries it leaves less to do than finer parts of everything.
    return max(bounds)
