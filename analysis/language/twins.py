"""At equal tokens, which is better: what a family is about, or a dense model?

All that were trained to the end beside the control and beside the best dense model, at equal steps and at equal tokens
(batch sizes may differ), paired by seed; and after how many tokens and seconds of training each was as good as those
two in the end. The verdict is about the best that is not dense less the best dense one, at equal tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from analysis.diagnose.api import Finding, Plot, Series, Value, Verdict, answer
from analysis.diagnose.verdicts import shown
from analysis.language.finishers import (
    LOSS,
    MILLION,
    Clock,
    Finished,
    Paired,
    closing,
    curves,
    doubted,
    finished,
    furthest,
    is_wide,
    name,
    paired,
    pairs_text,
    reached,
    value_of,
)
from analysis.view import Candidate, Run

_AS_GOOD = 0.0  # nats per token that the best one may be worse by than the best dense one
_MAX_SHOWN = 6  # candidates in the plot; the control and the best dense one are always among them
_EQUAL: tuple[Clock, ...] = ("steps", "tokens")
_BILLS: tuple[Clock, ...] = ("tokens", "seconds")


@dataclass(frozen=True)
class Subject:
    """What a family is about, as a sentence names it, with its verbs: ``experts``, ``are``, ``do``."""

    noun: str
    be: str
    do: str


def at_equal_tokens(run: Run, about: Subject) -> Finding:
    """Return a finding with values for each candidate: ``minus_control_at_equal_steps``,
    ``minus_control_at_equal_tokens``, ``minus_dense_at_equal_steps``, ``minus_dense_at_equal_tokens`` in nats per token
    (below zero: better than the control, or than the best dense one); ``millions_of_tokens_to_control``,
    ``seconds_to_control``, ``millions_of_tokens_to_dense``, ``seconds_to_dense``: where the mean over common seeds of
    the best loss so far first is at most that one's at its end, NaN if it never is. Seconds are of training alone, of
    whatever machines the run had.
    """
    there = finished(run)
    goals = {"control": there.control}  # whose loss at the end is one to reach
    goals |= {"dense": there.dense} if there.dense is not None else {}
    values: dict[str, Value] = {}
    for candidate in there.candidates:
        values |= dict(_against(candidate, goals))
    judged, verdict, threshold = _judge(there, about)
    summary = " ".join([*judged, *_sooner(there, values), *_against_control(there), closing(there)])
    return answer(verdict, summary, values, threshold, _plots(there))


def _against(candidate: Candidate, goals: Mapping[str, Candidate]) -> Iterator[tuple[str, Value]]:
    for word, other in goals.items():
        if other is not candidate:
            for clock in _EQUAL:
                beside = paired(candidate, other, clock)
                if beside is not None:
                    yield value_of(candidate, f"minus_{word}_at_equal_{clock}"), beside.difference
        tokens, seconds = (_to_goal(candidate, other, clock) for clock in _BILLS)
        yield value_of(candidate, f"millions_of_tokens_to_{word}"), tokens / MILLION
        yield value_of(candidate, f"seconds_to_{word}"), seconds


def _to_goal(candidate: Candidate, goal: Candidate, clock: Clock) -> float:
    ours, theirs = curves(candidate, clock), curves(goal, clock)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return math.nan
    return reached([ours[seed] for seed in seeds], fmean(theirs[seed].values[-1] for seed in seeds))


def _judge(there: Finished, about: Subject) -> tuple[list[str], Verdict, dict[str, float]]:
    """What to say of the best one beside the best dense one, the verdict, and what it is held against."""
    best, dense = there.best, there.dense
    if dense is None:
        return (
            [f"No dense model was trained to the end, so {about.noun} {about.be} held against none."],
            "no_evidence",
            {},
        )
    if best is None:
        return ["Only dense models were trained to the end."], "no_evidence", {}
    pair = paired(best, dense, "tokens")
    if pair is None:
        return [f"{name(best)} and {name(dense)} have no seed in common."], "no_evidence", {}
    verdict = doubted(pair.difference, lambda value: value <= _AS_GOOD)
    words = {
        "pass": f"{about.noun} {about.be} at least as good at the same tokens",
        "warn": "which of them is better at the same tokens cannot be told",
        "fail": f"{about.noun} {about.do} not reach the dense model at the same tokens",
        "no_evidence": "the losses are not finite",
    }[verdict]
    sentence = (
        f"After {pair.place / MILLION:.4g} million tokens {name(best)}, the best with {about.noun}, is "
        f"{_better(pair)} than {name(dense)}, the best dense one ({pairs_text(len(pair.ours))}): {words}."
    )
    return [sentence], verdict, {value_of(best, "minus_dense_at_equal_tokens"): _AS_GOOD}


def _against_control(there: Finished) -> list[str]:
    """The best one at equal tokens beside the control."""
    if not there.others:
        return ["No candidate but the control was trained to the end."]
    best = there.others[0]
    if best is there.dense or not (pair := paired(best, there.control, "tokens")):
        return []
    first = f"the best of {len(there.others)}, {name(best)}," if there.others[1:] else name(best)
    return [f"Beside the control, {name(there.control)}, {first} is {_better(pair)} ({pairs_text(len(pair.ours))})."]


def _sooner(there: Finished, values: dict[str, Value]) -> Iterator[str]:
    """How much of the dense one's tokens the best that is not dense took to be as good."""
    best, dense = there.best, there.dense
    if best is None or dense is None:
        return
    ours, theirs = (values[value_of(c, "millions_of_tokens_to_dense")] for c in (best, dense))
    assert isinstance(ours, float)
    assert isinstance(theirs, float)
    if math.isfinite(ours / theirs):
        yield f"It was as good as the dense one in the end after {ours / theirs:.2f} of its tokens."


def _better(pair: Paired) -> str:
    """``0.021 (0.018 to 0.024) nats per token better``."""
    word = "better" if pair.difference.value < 0.0 else "worse"
    return f"{shown(pair.difference.size)} nats per token {word}"


def _plots(there: Finished) -> tuple[Plot, ...]:
    """The whole course, and its second half, where the first descent does not flatten what is left."""
    first = there.candidates[:_MAX_SHOWN]
    late = [c for c in there.candidates[_MAX_SHOWN:] if c is there.control or c is there.dense]
    drawn = [c for c in (*first, *late) if curves(c, "tokens")]
    half = 0.5 * min(furthest(list(curves(c, "tokens").values())) for c in drawn)
    what = "Best loss so far against tokens"
    whole = _plot(there, drawn, f"{what}: mean over seeds, and their range", 0.0)
    return whole, _plot(there, drawn, f"{what}: the second half", half)


def _plot(there: Finished, some: Sequence[Candidate], title: str, after: float) -> Plot:
    series = []
    for candidate in some:
        by_seed = list(curves(candidate, "tokens").values())
        places = sorted({place for curve in by_seed for place in curve.places if place >= after})
        rows = [[value for c in by_seed if math.isfinite(value := c.between(place))] for place in places]
        series.append(
            Series(
                name(candidate) + (", control" if candidate is there.control else ""),
                tuple(place / MILLION for place in places),
                tuple(fmean(row) for row in rows),
                tuple(min(row) for row in rows),
                tuple(max(row) for row in rows),
            )
        )
    wide = is_wide([place for one in series for place in one.x])
    x_label, y_label = "millions of tokens trained on", f"{LOSS} (nats per token)"
    return Plot(title, x_label, y_label, "line", tuple(series), log_x=wide)
