"""The figures of a report of a search: baselines, funnel, curves, matched steps, importance, quality against cost.

Nothing is computed here but the means and ranges over seeds that are drawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from analysis.reports.page.facts import Facts
from analysis.reports.plots import (
    BLACK,
    BLUE,
    GREEN,
    HEIGHT,
    RED,
    Picture,
    axis_label,
    frame,
    logarithmic,
    picture,
    shortened,
)
from analysis.reports.tables import listed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_SHOWN = 5  # candidates with a colour of their own, the control beside them
_MAX_SVG_LINES = 120  # more grey lines than that make a PNG
_LABEL = 46  # characters of a config
_MANY_TIMES = 50  # as much cost as the first point's makes its axis logarithmic


def baselines(facts: Facts) -> Picture | None:
    """Baselines on test, and where the best one, the control and references stand among them; None without any."""
    if not facts.baselines:
        return None
    rows = [(float(r.value), str(r.name), math.nan, "") for r in facts.baselines]
    rows += [
        (s.test, shortened(f"{s.candidate} {facts.run.candidates[s.candidate].name}", _LABEL), s.test_std, role)
        for s, role in facts.beside_baselines
    ]
    rows.sort(key=lambda row: -facts.run.sign * row[0])

    better = "lower" if facts.run.sign > 0.0 else "higher"

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for at, (value, _, std, role) in enumerate(rows):
            colour, marker = {"best": (BLUE, "D"), "control": (RED, "s"), "reference": (GREEN, "^")}.get(
                role, (BLACK, "o")
            )
            axes.plot([value], [at], marker, color=colour, markersize=8 if role else 5, zorder=3)
            if std > 0.0:
                axes.plot([value - std, value + std], [at, at], color=colour, linewidth=2.0, zorder=2)
        axes.set_yticks(range(len(rows)), [row[1] for row in rows])
        for label, (_, _, _, role) in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if role else "normal")
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(f"{axis_label(facts.run.test_metric, facts.unit)}, {better} is better")
        frame(axes)
        axes.grid(axis="y", color="#EEEEEE")

    shapes = {"best": "best (diamond)", "control": "control (square)", "reference": "references (triangles)"}
    there = listed(text for role, text in shapes.items() if role in {row[3] for row in rows})
    caption = f"Baselines (dots) on test, with this run's {there}, ± std over seeds."
    return picture(fill, caption, height=0.9 + 0.27 * len(rows))


def matched(facts: Facts) -> Picture | None:
    """The best one minus the control at equal steps; None where they were not compared."""
    row = next((m for m in facts.matched if facts.best is not None and m.candidate == facts.best.candidate), None)
    if row is None:
        return None

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(0.0, color=BLACK, linewidth=1.0)
        means = [point.mean.value for point in row.points]
        steps = [point.step for point in row.points]
        axes.plot(steps, means, color=BLUE, linewidth=2.0, marker="o", markersize=4, zorder=3)
        band = [(point.step, *point.mean[1:]) for point in row.points if math.isfinite(point.mean.low)]
        if band:
            steps, low, high = map(list, zip(*band, strict=True))
            axes.fill_between(steps, low, high, color=BLUE, alpha=0.2, linewidth=0)
            ends = [0.0, *means, *(v for step, *pair in band if step >= 0.2 * steps[-1] for v in pair)]
            margin = 0.05 * (max(ends) - min(ends)) or 1.0
            axes.set_ylim(min(ends) - margin, max(ends) + margin)
        axes.set_xlabel("optimiser steps")
        axes.set_ylabel(axis_label(f"{row.candidate} - control", facts.unit))
        frame(axes)

    side = "below" if facts.run.sign > 0 else "above"
    text = f"Best so far, {row.candidate} minus control, in pairs of seeds ({side} zero: better than the control); "
    return picture(fill, text + "band: 95% Student's t at each step.", height=HEIGHT * 0.8)


def importance(facts: Facts) -> Picture | None:
    """Shares of parameters, with how often chance shows as much; None where there is no analysis."""
    shares = facts.importance.shares
    if not shares:
        return None

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for at, share in enumerate(shares):
            style: dict[str, Any] = (
                {"color": BLUE} if share.stands_out else {"color": "white", "edgecolor": BLUE, "hatch": "///"}
            )
            axes.barh([at], [share.share], 0.6, zorder=2, **style)
            text = f"p = {share.p_value:.2f}"
            axes.annotate(text, (share.share, at), (4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(range(len(shares)), [share.name for share in shares])
        axes.set_ylim(len(shares) - 0.5, -0.5)
        axes.set_xlim(right=1.12 * max(share.share for share in shares) or 1.0)
        axes.set_xlabel("share of importance")
        frame(axes)
        axes.grid(visible=False)

    text = (
        "Share of each parameter; hatched where chance shows as much, p: how often chance does (over all parameters)."
    )
    return picture(fill, text, height=0.8 + 0.3 * len(shares))


def quality(facts: Facts) -> Picture | None:
    """The best val value so far against the steps spent; None before anything was reported."""
    points = facts.quality
    if not points:
        return None

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        steps = [p.total_steps for p in points] + [facts.run.spent.steps]
        values = [p.value for p in points] + [points[-1].value]
        axes.step(steps, values, where="post", color=BLUE, linewidth=2.0)
        axes.plot([p.total_steps for p in points], [p.value for p in points], "o", color=BLUE, markersize=4)
        if steps[-1] > _MANY_TIMES * steps[0]:
            logarithmic(axes, x=True)
        axes.set_xlabel("optimiser steps spent on the whole run")
        axes.set_ylabel(axis_label(f"best {facts.run.objective}", facts.unit))
        frame(axes)

    text = "The best value of any member so far (the luckiest seed's) against the steps of the whole run."
    return picture(fill, text, height=HEIGHT * 0.75)
