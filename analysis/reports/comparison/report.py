"""The report of a comparison: is B better or worse than A over paired seeds, and which keys make it so.

The verdict is `analysis.stats.claims`'. Values are in the objective's own sign and unit; only the claim is of the
minimised difference, and is turned back here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from analysis.reports import figures
from analysis.reports.comparison import bisection as bisection_report
from analysis.reports.comparison import paired
from analysis.reports.comparison import words as sentences
from analysis.reports.comparison.bisection import Bisection
from analysis.reports.comparison.facts import Comparison, Side
from analysis.reports.tables import (
    NONE,
    counted,
    duration,
    escaped,
    markdown_table,
    mean_std,
    number,
    write_csv,
    write_json,
    write_text,
)
from analysis.search.best_so_far import Point


def write(comparison: Comparison, folder: Path) -> Path:
    """Write comparison.md, .json, difference.png and .csv, and bisection.png where there are midpoints; the first path.

    The folder is made if it is not there. Nothing in the numbers (no pair, lost seeds, NaN) is an error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    both, seeds = (comparison.a, comparison.b), sentences.pairs_in(comparison)
    points = paired.by_step(both[0].curves, both[1].curves, seeds, comparison.mode, comparison.alpha)
    figures.draw_difference(comparison, points, folder / "difference.png")
    if comparison.bisection is not None and comparison.bisection.midpoints:
        figures.draw_midpoints(comparison.bisection.midpoints, folder / "bisection.png")
    write_csv(folder / "difference.csv", ("seed", "a", "b", "b_minus_a"), _rows(comparison))
    write_json(folder / "comparison.json", _numbers(comparison, points))
    path = folder / "comparison.md"
    write_text(path, "\n".join(_markdown(comparison, points)) + "\n")
    return path


def lines(comparison: Comparison) -> list[str]:
    """Four to eight plain lines for a terminal: the verdict first, then what it rests on, its cost and its doubts."""
    return sentences.lines(comparison)


def _rows(comparison: Comparison) -> list[tuple[int, float | None, float | None, float | None]]:
    rows = []
    for seed in dict.fromkeys([*comparison.a.values, *comparison.b.values]):
        a, b = (sentences.value_of(side, seed) for side in (comparison.a, comparison.b))
        rows.append((seed, a, b, None if a is None or b is None else b - a))
    return rows


def _markdown(comparison: Comparison, points: Sequence[Point]) -> list[str]:
    verdict, *others = sentences.lines(comparison)
    text = [f"# {escaped(comparison.run)}: B against A", "", f"**{escaped(verdict)}**", ""]
    text += [f"- {escaped(line)}" for line in others]
    text += ["", "![Values by seed, and B - A by step](difference.png)", "", _caption(comparison, points)]
    text += ["", "## Sides", "", *_sides_table(comparison), "", "## Seeds", "", *_seeds_table(comparison), ""]
    if comparison.bisection is not None:
        text += bisection_report.section(comparison.bisection)
    better = "lower" if comparison.mode == "min" else "higher"
    region = f"±{comparison.region:g} {comparison.unit}".rstrip() if comparison.region else "none given"
    text += ["## How", ""]
    text += [
        f"- Family {escaped(comparison.family)}, objective {escaped(comparison.objective)} ({better} is better), each "
        f"seed trained to step {comparison.until_step:,} at most.",
        f"- Test: {sentences.TEST_NAMES.get(comparison.test, escaped(comparison.test))}, two-sided at "
        f"alpha = {comparison.alpha:g}, pairs at most fixed before: {comparison.claim.num_max}. Region of practical "
        f"equivalence: {region}.",
        "- Intervals of the mean difference are Student's t, those of P(A > B) Wilson's.",
        "",
        "```",
        comparison.command,
        "```",
    ]
    return text


def _caption(comparison: Comparison, points: Sequence[Point]) -> str:
    num = len(points[0].differences) if points else 0
    level = f"{100.0 * (1.0 - comparison.alpha):g}%"
    return (
        f"Left: best {escaped(comparison.objective)} of each seed, one line a pair, crosses for lost seeds. "
        f"Right: B - A in the best so far, mean over {counted(num, 'pair')} without a loss. The band is Student's t at "
        f"{level}, pointwise: it looks at every step, and is not what the verdict rests on."
    )


def _sides_table(comparison: Comparison) -> list[str]:
    places = sentences.places(comparison)
    rows = []
    for letter, side in (("A", comparison.a), ("B", comparison.b)):
        kept = [v for seed in side.values if (v := sentences.value_of(side, seed)) is not None]
        test = comparison.tests.get(letter.lower(), (math.nan, math.nan))
        rows.append(
            (
                letter,
                escaped(side.name),
                escaped(side.config_summary) or NONE,
                f"{len(side.values)}",
                f"{len(side.values) - len(kept)}",
                mean_std(fmean(kept) if kept else math.nan, stdev(kept) if len(kept) > 1 else math.nan, places),
                mean_std(*test, places),
                f"{side.steps:,}",
                duration(side.seconds),
            )
        )
    header = ("side", "config", "differs in", "seeds", "lost", "mean ± std", "test", "steps", "compute time")
    return markdown_table(header, rows, text_columns=3)


def _seeds_table(comparison: Comparison) -> list[str]:
    places = sentences.places(comparison)
    sign = comparison.sign
    rows = []
    for seed, a, b, difference in _rows(comparison):
        winner = NONE
        if difference is not None:
            winner = "tie" if difference == 0.0 else "B" if sign * difference < 0.0 else "A"
        values = [
            number(side_value, places) if side_value is not None else "lost" if seed in side.values else NONE
            for side_value, side in ((a, comparison.a), (b, comparison.b))
        ]
        rows.append((str(seed), *values, number(difference, places, signed=True), winner))
    return markdown_table(("seed", "A", "B", "B - A", "better"), rows)


def _numbers(comparison: Comparison, points: Sequence[Point]) -> dict[str, Any]:
    """What comparison.json holds; differences in the objective's own sign."""
    claim = comparison.claim
    mean, low, high = sentences.difference(comparison)
    level = 1.0 - comparison.alpha
    named = ("run", "family", "objective", "unit", "mode", "until_step", "test", "alpha", "region", "command")
    return {
        **{name: getattr(comparison, name) for name in named},
        "verdict": claim.verdict,
        "decided": claim.decided,
        "reason": claim.reason,
        "num_pairs": claim.num_pairs,
        "num_max": claim.num_max,
        "b_minus_a": {"mean": mean, "low": low, "high": high, "level": level},
        "p_a_beats_b": {**sentences.a_wins(claim)._asdict(), "level": level},
        "p_value": claim.p_value,
        "e_value": claim.e_value,
        "pairs_needed": sentences.needed(comparison),
        "doubts": sentences.doubts(comparison),
        "a": _side(comparison.a),
        "b": _side(comparison.b),
        "test_split": {side: {"mean": mean, "std": std} for side, (mean, std) in comparison.tests.items()},
        "by_step": [_with_ends(asdict(point), "mean") for point in points],
        "bisection": None if comparison.bisection is None else _bisection(comparison.bisection),
    }


def _bisection(bisection: Bisection) -> dict[str, Any]:
    return asdict(bisection) | {
        "midpoints": [_with_ends(asdict(midpoint), "position") for midpoint in bisection.midpoints]
    }


def _with_ends(row: dict[str, Any], name: str) -> dict[str, Any]:
    """The row with the interval ``name`` as its value, and the ends beside it as ``low`` and ``high``."""
    value, low, high = row[name]
    return row | {name: value, "low": low, "high": high}


def _side(side: Side) -> dict[str, Any]:
    names = ("name", "config_summary", "values", "steps", "seconds")
    return {name: getattr(side, name) for name in names}
