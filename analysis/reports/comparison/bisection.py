"""The part of a comparison's report that names guilty keys: causes, midpoints, and what is left in doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analysis.reports.tables import NONE, code, counted, ends, escaped, listed, markdown_table, number
from analysis.stats.interval import Interval

_CAUTION = (
    "A cause is 1-minimal: none of its keys (or groups of keys that were changed as one) can be left out. That is no "
    "proof that there is no other cause: keys that act only together with others, effects smaller than half the "
    "difference, and midpoints that were decided wrongly can all hide one."
)

_POSITION = (
    "Position: 0 is like A, 1 like B, in units of their difference, as a mean over seeds with its interval. A midpoint "
    "carries the difference if it is nearer to B than to A; hollow marks were decided by the mean, not by a test."
)


@dataclass(frozen=True)
class Midpoint:
    """A with some keys as in B.

    Attributes:
        outcome: whether it carries the difference; None while that is not decided.
        position: mean over seeds between A (0) and B (1), with its interval; NaN without a value.
        sure: whether a test decided the outcome rather than the side of the halfway point on which the mean lies.
    """

    keys: tuple[str, ...]
    outcome: Literal["carries", "clean", "invalid"] | None
    position: Interval
    num_seeds: int
    sure: bool
    steps: int


@dataclass(frozen=True)
class Bisection:
    """Where the search for the keys that carry the difference ended.

    Attributes:
        suspects: keys in which A and B differ, with ``values_a`` and ``values_b`` where a side has the key.
        causes: sets found, each of which carries the difference and can lose none of its groups.
        remaining: the smallest set known to carry it, of the cause sought when the search ended.
        max_probes: how many midpoints were allowed.
        rest_carries: whether what is left without the causes still carries it; None if that is not known.
        note: anything else that a reader must know; may be empty.
    """

    suspects: tuple[str, ...]
    causes: tuple[tuple[str, ...], ...]
    remaining: tuple[str, ...]
    done: bool
    midpoints: tuple[Midpoint, ...]
    max_probes: int
    values_a: Mapping[str, Any]
    values_b: Mapping[str, Any]
    rest_carries: bool | None
    note: str


def line(bisection: Bisection) -> str:
    """What was found, in one line."""
    cost = f"{counted(_num_run(bisection), 'midpoint')} of at most {bisection.max_probes}"
    causes = "; ".join(" + ".join(cause) for cause in bisection.causes)
    if bisection.done:
        return f"Guilty: {causes or 'nothing'} ({cost})."
    left = f"not finished ({cost}), still suspect: {', '.join(_suspect_now(bisection))}"
    return f"Guilty so far: {causes}; {left}." if causes else f"Guilty: {left}."


def _num_run(bisection: Bisection) -> int:
    """Midpoints that were run: those that build no valid config cost nothing."""
    return sum(midpoint.outcome != "invalid" for midpoint in bisection.midpoints)


def _suspect_now(bisection: Bisection) -> tuple[str, ...]:
    """Keys among which a cause is still sought; none when the search is done."""
    if bisection.done:
        return ()
    guilty = {key for cause in bisection.causes for key in cause}
    # Between two causes `remaining` is still the one found last.
    left = tuple(key for key in bisection.remaining if key not in guilty)
    return left or tuple(key for key in bisection.suspects if key not in guilty)


def doubts(bisection: Bisection) -> list[str]:
    """What is not known at the end, each in one sentence."""
    in_doubt = []
    if not bisection.done:
        ended = (
            "the budget of midpoints ended it" if _num_run(bisection) >= bisection.max_probes else "it was interrupted"
        )
        in_doubt.append(f"The search is not finished: {ended} with {listed(_suspect_now(bisection))} still suspect.")
    elif bisection.rest_carries is None and bisection.causes:
        in_doubt.append("Whether what is left without the causes carries the difference is not known: no valid config.")
    if bisection.rest_carries:
        in_doubt.append("What is left without the causes still carries the difference: there is another cause in it.")
    unsure = sum(p.outcome in ("carries", "clean") and not p.sure for p in bisection.midpoints)
    if unsure:
        in_doubt.append(
            f"{counted(unsure, 'midpoint')} went by the mean alone: no test decided which end it is nearer to."
        )
    return in_doubt


def section(bisection: Bisection) -> list[str]:
    """Markdown, from its heading on."""
    text = ["## Which keys make it so", "", escaped(line(bisection)), ""]
    if bisection.causes:
        text += [*_causes_table(bisection), ""]
    if _suspect_now(bisection):
        text += ["Still suspect:", "", *_keys_table(bisection, [("", key) for key in _suspect_now(bisection)]), ""]
    if bisection.midpoints:
        text += ["![Midpoints between A and B](bisection.png)", "", *_midpoints_table(bisection.midpoints), ""]
        text += [_POSITION, ""]
    text += [f"- {escaped(doubt)}" for doubt in doubts(bisection)]
    text += [f"- {_CAUTION}"]
    if bisection.note:
        text += [f"- {escaped(bisection.note)}"]
    return [*text, ""]


def _causes_table(bisection: Bisection) -> list[str]:
    return _keys_table(bisection, [(str(i), key) for i, keys in enumerate(bisection.causes, 1) for key in keys])


def _keys_table(bisection: Bisection, keys: Sequence[tuple[str, str]]) -> list[str]:
    a, b = bisection.values_a, bisection.values_b
    rows = [
        [cause, code(key), *(code(side[key]) if key in side else "not set" for side in (a, b))] for cause, key in keys
    ]
    header = ["cause", "key", "A", "B"]
    skip = 0 if any(cause for cause, _ in keys) else 1
    return markdown_table(header[skip:], [row[skip:] for row in rows], text_columns=len(header))


def _midpoints_table(midpoints: Sequence[Midpoint]) -> list[str]:
    header = ("#", "keys from B", "outcome", "decided by", "position", "interval", "seeds", "steps")
    rows = [
        (
            str(i),
            ", ".join(map(code, midpoint.keys)),
            "no valid config" if midpoint.outcome == "invalid" else midpoint.outcome or "not decided",
            ("test" if midpoint.sure else "mean") if midpoint.outcome in ("carries", "clean") else NONE,
            number(midpoint.position.value, 2),
            ends(midpoint.position, 2),
            str(midpoint.num_seeds),
            f"{midpoint.steps:,}",
        )
        for i, midpoint in enumerate(midpoints, 1)
    ]
    return markdown_table(header, rows, text_columns=4)
