"""Figures of reports as PNG files: a difference, midpoints of a bisection, a race."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from analysis.reports.comparison import words as sentences
from analysis.reports.comparison.bisection import Midpoint
from analysis.reports.plots import (
    BLACK,
    BLUE,
    DPI,
    GREEN,
    GREY,
    ORANGE,
    RED,
    STYLES,
    axis_label,
    figure_of,
    frame,
    shortened,
)
from analysis.reports.race.words import LOST
from analysis.reports.tables import write_bytes

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from analysis.reports.comparison.facts import Comparison
    from analysis.reports.race.best_of_seeds import Seeds
    from analysis.reports.race.facts import Race, Racer
    from analysis.search.best_so_far import Point

_LABEL_LENGTH = 44  # characters of a midpoint's keys
_SHOWN = (-0.8, 1.8)  # positions drawn; an interval that goes further ends in an arrow
_TRANSIENT = 0.2  # of the steps: what happens there does not set the frame


def draw_difference(comparison: Comparison, points: Sequence[Point], path: Path) -> None:
    """Values of A and B paired by seed, and B - A in the best so far by step with its pointwise band."""
    with _png(path, 9.0, 4.2) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.5))
        _pairs(left, comparison)
        _by_step(right, comparison, points)
        named = [(letter, side.name) for letter, side in (("A", comparison.a), ("B", comparison.b)) if side.name]
        figure.suptitle(
            ",  ".join(f"{letter}: {shortened(name, _LABEL_LENGTH)}" for letter, name in named), x=0.02, ha="left"
        )


def draw_midpoints(midpoints: Sequence[Midpoint], path: Path) -> None:
    """Positions of midpoints between A (0) and B (1), in the order in which they were run, from the top."""
    with _png(path, 9.0, 1.5 + 0.32 * len(midpoints)) as figure:
        axes = figure.subplots()
        for row, midpoint in enumerate(midpoints):
            _midpoint(axes, row, midpoint)
        axes.axvline(0.5, color=BLACK, linewidth=0.9, linestyle="--", zorder=1)
        for end in (0.0, 1.0):
            axes.axvline(end, color=GREY, linewidth=0.9, zorder=1)
        axes.set_yticks(range(len(midpoints)), [_keys_label(midpoint.keys) for midpoint in midpoints])
        axes.set_ylim(len(midpoints) - 0.4, -0.6)
        axes.set_xlim(_SHOWN[0] - 0.08, _SHOWN[1] + 0.08)
        axes.set_xticks([0.0, 0.5, 1.0], ["like A", "halfway", "like B"])
        axes.spines[["top", "right"]].set_visible(False)
        title = "A with some keys taken from B: where that lies (hollow: not decided by a test)"
        figure.suptitle(title, x=0.02, ha="left")
        figure.legend(*_kinds(axes), loc="outside lower right", ncols=3, frameon=False)


def draw_race(race: Race, seeds: Seeds, path: Path) -> None:
    """Curves of all seeds, those that went furthest bold, beside the expected best of k (of minimised values)."""
    with _png(path, 9.0, 4.2) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.9, 1.0))
        _curves(left, race, seeds)
        _best_of(right, race, seeds)


@contextmanager
def _png(path: Path, width: float, height: float) -> Iterator[Figure]:
    """An empty figure in inches, written when the block ends."""
    with figure_of(width, height) as figure:
        yield figure
        body = io.BytesIO()
        figure.savefig(body, format="png", dpi=DPI)
    write_bytes(path, body.getvalue())


def _legend(axes: Axes, columns: int) -> None:
    """Below the axes; an empty one would still take room."""
    handles, labels = _kinds(axes)
    if labels:
        axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=columns, frameon=False)


def _kinds(axes: Axes) -> tuple[list[Artist], list[str]]:
    """Handles and labels for a legend, which names each kind once."""
    handles, labels = axes.get_legend_handles_labels()
    kinds = dict(zip(labels, handles, strict=True))
    return list(kinds.values()), list(kinds)


def _empty(axes: Axes, why: str) -> None:
    """Says so, and shows no scale: there is nothing that it could be of."""
    axes.text(0.5, 0.7, why, ha="center", transform=axes.transAxes)
    axes.set_yticks([])


def _pairs(axes: Axes, comparison: Comparison) -> None:
    """One slope a seed; a lost seed is a cross beyond the worst value."""
    sign = comparison.sign
    sides = (comparison.a, comparison.b)
    seeds = list(dict.fromkeys(seed for side in sides for seed in side.values))
    columns = [[sentences.value_of(side, seed) for seed in seeds] for side in sides]
    finite = [value for column in columns for value in column if value is not None]
    spread = (max(finite) - min(finite) if finite else 0.0) or 1.0
    worst = sign * (max((sign * value for value in finite), default=0.0) + 0.12 * spread)
    for a, b in zip(*columns, strict=True):
        if a is not None and b is not None:
            better = sign * (b - a) < 0.0
            label = "B better" if better else "B worse" if a != b else "tie"
            style = "-" if better else "--" if a != b else ":"
            colour = GREEN if better else BLACK
            axes.plot([0, 1], [a, b], style, color=colour, linewidth=1.2, zorder=2, label=label)
        else:
            ends = [worst if value is None else value for value in (a, b)]
            axes.plot([0, 1], ends, color=GREY, linestyle=":", linewidth=0.9, zorder=1)
    for at, (side, column) in enumerate(zip(sides, columns, strict=True)):
        _column(axes, at, [value for value in column if value is not None], len(sentences.lost(side)), worst)
    if not finite:
        _empty(axes, "no seed has a value")
    axes.set_xlim(-0.7, 1.7)
    axes.set_xticks([0, 1], ["A", "B"])
    axes.set_ylabel(axis_label(comparison.objective, comparison.unit))
    axes.set_title("Best of each seed (bar: mean)", loc="left")
    frame(axes)
    _legend(axes, 3)


def _column(axes: Axes, at: int, kept: Sequence[float], num_lost: int, worst: float) -> None:
    colour, marker = ((BLUE, "o"), (RED, "s"))[at]
    axes.plot([at] * len(kept), kept, marker, color=colour, markersize=6, zorder=3)
    if kept:
        axes.plot((-0.35, -0.12) if at == 0 else (1.12, 1.35), [fmean(kept)] * 2, color=colour, linewidth=3.0, zorder=3)
    if num_lost:
        axes.plot([at], [worst], "x", color=colour, markersize=8, markeredgewidth=2.0, zorder=4)
        axes.annotate(
            f"{num_lost} lost",
            (at, worst),
            (-9 if at == 0 else 9, 0),
            textcoords="offset points",
            ha="right" if at == 0 else "left",
            va="center",
        )


def _by_step(axes: Axes, comparison: Comparison, points: Sequence[Point]) -> None:
    """Thin lines a seed, the mean, its band, zero and the region of practical equivalence."""
    axes.axhline(0.0, color=BLACK, linewidth=1.0, zorder=2)
    if comparison.region:
        label = f"region ±{comparison.region:g}"
        ends = (-comparison.region, comparison.region)
        axes.axhspan(*ends, color=ORANGE, alpha=0.16, linewidth=0, label=label, zorder=0)
        for end in ends:
            axes.axhline(end, color=ORANGE, linewidth=1.3, linestyle="--", zorder=2)
    steps = [point.step for point in points]
    if points:
        for differences in zip(*(point.differences for point in points), strict=True):
            axes.plot(steps, differences, color=GREY, linewidth=0.7, label="one pair", zorder=1)
        level = f"{100.0 * (1.0 - comparison.alpha):g}%, pointwise"
        low, high = [point.mean.low for point in points], [point.mean.high for point in points]
        if all(map(math.isfinite, low)):
            axes.fill_between(steps, low, high, color=BLUE, alpha=0.25, linewidth=0, label=level, zorder=1)
        axes.plot(steps, [p.mean.value for p in points], color=BLUE, linewidth=2.2, label="mean", zorder=3)
        _frame_late(axes, points)
    else:
        _empty(axes, "no pair has a curve on both sides")
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel(axis_label("B - A", comparison.unit))
    better = "below" if comparison.mode == "min" else "above"
    axes.set_title(f"B - A in the best so far ({better} zero: B better)", loc="left")
    frame(axes)
    _legend(axes, 4)


def _frame_late(axes: Axes, points: Sequence[Point]) -> None:
    """The first differences may be huge: the frame is that of all but the first fifth, with zero in it."""
    from_step = points[0].step + _TRANSIENT * (points[-1].step - points[0].step)
    late = [point for point in points if point.step >= from_step]
    ends = [0.0, *(v for p in late for v in (*p.differences, *p.mean[1:]) if math.isfinite(v))]
    margin = 0.08 * (max(ends) - min(ends)) or 1.0
    axes.set_ylim(min(ends) - margin, max(ends) + margin)


def _midpoint(axes: Axes, row: int, midpoint: Midpoint) -> None:
    styles = {"carries": (RED, "o", "carries the difference"), "clean": (BLUE, "s", "clean")}
    colour, marker, label = styles.get(midpoint.outcome or "", (ORANGE, "D", "not decided"))
    if midpoint.outcome == "invalid" or not math.isfinite(midpoint.position.value):
        reason = "no valid config" if midpoint.outcome == "invalid" else "no value"
        white = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(0.5, row, reason, color="#555555", ha="center", va="center", fontsize=8, bbox=white)
        return
    low, high = _SHOWN
    if math.isfinite(midpoint.position.half_width):
        ends = [max(midpoint.position.low, low), min(midpoint.position.high, high)]
        axes.plot(ends, [row, row], color=colour, linewidth=1.8, zorder=2)
        if midpoint.position.low < low:
            axes.plot([low], [row], "<", color=colour, markersize=6, zorder=2)
        if midpoint.position.high > high:
            axes.plot([high], [row], ">", color=colour, markersize=6, zorder=2)
    at, face = min(max(midpoint.position.value, low), high), colour if midpoint.sure else "white"
    axes.plot([at], [row], marker, color=colour, markerfacecolor=face, markersize=7, zorder=3, label=label)


def _keys_label(keys: Sequence[str]) -> str:
    """As many keys as fit, then how many more."""
    for num in range(len(keys), 0, -1):
        label = ", ".join(keys[:num]) + (f" + {len(keys) - num} more" if num < len(keys) else "")
        if len(label) <= _LABEL_LENGTH or num == 1:
            return label if len(label) <= 2 * _LABEL_LENGTH else f"{label[:_LABEL_LENGTH]}…"
    return "none"


def _curves(axes: Axes, race: Race, seeds: Seeds) -> None:
    sign = race.sign
    bold = _leaders(race)
    for racer in race.racers:
        points = [(step, value) for step, value in sorted(racer.curve) if math.isfinite(value)]
        if racer in bold or not points:
            continue
        is_lost = racer.status in LOST
        style, label = ("--", "lost") if is_lost else ("-", "did not go on" if len(race.gates) > 1 else "other seeds")
        axes.plot(*zip(*points, strict=True), color=GREY, linestyle=style, linewidth=1.0, label=label)
        axes.plot(*points[-1], "x" if is_lost else "|", color=GREY, markersize=7, markeredgewidth=1.6)
    for racer, (colour, style, marker) in zip(bold, STYLES, strict=False):
        points = [(step, value) for step, value in sorted(racer.curve) if math.isfinite(value)]
        if points:
            label = f"seed {racer.seed}"
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=2.2, label=label, zorder=3)
            top = min(points, key=lambda point: sign * point[1])
            axes.plot(*top, marker, color=colour, markersize=8, markeredgecolor="white", zorder=4)
    for gate in race.gates[:-1]:
        axes.axvline(gate, color=BLACK, linewidth=1.0, linestyle=":", label="gate", zorder=1)
    if seeds.line:
        label = f"success line, {seeds.line.source}"
        axes.axhline(sign * seeds.line.value, color=BLACK, linewidth=1.1, linestyle=(0, (6, 3)), label=label, zorder=2)
    _frame_race(axes, race, seeds)
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel(axis_label(race.objective, race.unit))
    axes.set_title("Every seed (bold: went furthest, mark: its best)", loc="left")
    frame(axes)
    _legend(axes, 4)


def _leaders(race: Race) -> list[Racer]:
    """Those that passed the most gates, best first, as many as have a style of their own."""
    sign = race.sign
    furthest = max((racer.passed for racer in race.racers), default=0)
    kept = [r for r in race.racers if r.passed == furthest and r.best is not None and math.isfinite(r.best)]
    return sorted(kept, key=lambda r: sign * (r.best or 0.0))[: len(STYLES)]


def _frame_race(axes: Axes, race: Race, seeds: Seeds) -> None:
    """From the best of all to the worst at the first gate and some more: the descent would flatten the rest."""
    sign = race.sign
    from_step = 0.0 if not race.gates else race.gates[0] if len(race.gates) > 1 else 0.5 * race.gates[0]
    sound = [racer for racer in race.racers if racer.status not in LOST]
    points = [(step, sign * v) for racer in sound or race.racers for step, v in racer.curve if math.isfinite(v)]
    values = [v for step, v in points if step >= from_step] or [v for _, v in points]
    if not values:
        _empty(axes, "no seed has a value")
        return
    ends = [*values, seeds.line.value] if seeds.line else values
    width = (max(ends) - min(ends)) or 1.0
    axes.set_ylim(*sorted((sign * (min(ends) - 0.06 * width), sign * (max(ends) + 0.4 * width))))


def _best_of(axes: Axes, race: Race, seeds: Seeds) -> None:
    sign = race.sign
    at = [row.k for row in seeds.best_of if math.isfinite(row.value.value)]
    known = [row.value.times(sign) for row in seeds.best_of if math.isfinite(row.value.value)]
    if known:
        below = [max(0.0, best.value - best.low) for best in known]
        above = [max(0.0, best.high - best.value) for best in known]
        values = [best.value for best in known]
        axes.errorbar(at, values, [below, above], fmt="o", color=BLUE, capsize=3, label="from the seeds")
    modelled = [(row.k, sign * row.model) for row in seeds.best_of if math.isfinite(row.model)]
    if modelled:
        axes.plot(*zip(*modelled, strict=True), "^--", color=RED, markersize=5, linewidth=1.2, label="success model")
    axes.set_xticks(range(1, len(seeds.best_of) + 1))
    axes.set_xlabel("k seeds")
    axes.set_ylabel(axis_label("expected best", race.unit))
    axes.set_title(f"Best of k at step {race.gates[0]:,}" if race.gates else "Best of k", loc="left")
    frame(axes)
    if not known:
        _empty(axes, "no seed has a value")
    _legend(axes, 2)
