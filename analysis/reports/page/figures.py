"""The figures of a report of a search: baselines, funnel, curves, matched steps, importance, quality against cost.

Nothing is computed here but the means and ranges over seeds that are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from analysis.reports.page.facts import Facts
from analysis.reports.plots import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    HEIGHT,
    ORANGE,
    RED,
    STYLES,
    Picture,
    axis_label,
    frame,
    logarithmic,
    nothing,
    picture,
    shortened,
)
from analysis.reports.tables import listed
from analysis.view import Candidate, Member

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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


def funnel(facts: Facts) -> Picture:
    """Entered, scored and passed at each gate."""
    rows = facts.run.funnel

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        kinds = (("entered", GREY, ""), ("scored", ORANGE, "///"), ("passed", BLUE, "\\\\\\"))
        for i, (name, colour, hatch) in enumerate(kinds):
            at = [k + (i - 1) * 0.27 for k in range(len(rows))]
            values = [getattr(row, name) for row in rows]
            axes.barh(at, values, 0.25, color=colour, hatch=hatch, edgecolor="white", label=name, zorder=2)
            for y, value in zip(at, values, strict=True):
                axes.annotate(str(value), (value, y), (3, 0), textcoords="offset points", va="center", fontsize=8)
        names = [f"to step {row.until_step:,}\n{row.num_seeds} seeds" for row in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(right=1.06 * max((row.entered for row in rows), default=0) or 1.0)
        axes.set_xlabel("members" if facts.run.kind == "race" else "candidates, control and references left out")
        frame(axes)
        axes.grid(visible=False)
        figure.legend(loc="outside upper left", ncols=3, frameon=False)

    return picture(
        fill, "How many entered each stage, were scored at its gate, and passed.", height=0.9 + 0.8 * len(rows)
    )


def curves(facts: Facts) -> Picture:
    """Means over seeds of the best few and the control with bands from the worst to the best seed; others grey."""
    followed = _shown(facts)
    ids = {candidate.id for candidate in followed}
    rest = [m for m in facts.run.members.values() if m.candidate not in ids and _points(m)]

    gates = [stage["until_step"] for stage in facts.run.stages[:-1]]
    members = [m for c in followed for m in c.members.values()]
    zooms = bool(gates) and any(m.steps > gates[-1] for m in members)

    def fill(figure: Figure) -> None:
        if not followed and not rest:
            nothing(figure.subplots(), "nothing finite was reported")
            return
        panels = figure.subplots(1, 2, width_ratios=(1.5, 1.0), squeeze=False)[0] if zooms else [figure.subplots()]
        starts = [0.5 * facts.run.stages[0]["until_step"], gates[-1] if zooms else 0.0]
        for axes, from_step in zip(panels, starts, strict=False):
            _grey(axes, rest)
            for candidate, style in zip(followed, _styles(facts, followed), strict=True):
                _band(axes, facts, candidate, style)
            for gate in gates:
                label = "gate" if gate == gates[0] else None
                axes.axvline(gate, color=BLACK, linewidth=1.0, linestyle=":", label=label, zorder=1)
            _frame_curves(axes, facts, members, rest, from_step)
            axes.set_xlabel("optimiser steps")
            frame(axes)
        panels[0].set_xlim(left=0)
        panels[0].set_ylabel(axis_label(facts.run.objective, facts.unit))
        if zooms:
            panels[1].set_xlim(left=gates[-1])
            panels[1].set_title("the last stage", loc="left")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False)

    text = (
        "Lines: the best candidates and the control, at each step the mean over the seeds that reported there; bands: "
    )
    text += "from the worst of them to the best"
    text += "; thin grey: members of all others" if rest else ""
    text += ". Values as reported; the first descent and what is far from the best may lie outside the frame."
    return picture(fill, text, height=HEIGHT * 1.45, as_png=len(rest) > _MAX_SVG_LINES)


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


def _shown(facts: Facts) -> list[Candidate]:
    """The control, and the best others."""
    run = facts.run
    control = run.control
    names = [s.candidate for s in facts.standings if not s.entry.is_control and math.isfinite(s.val)][:_MAX_SHOWN]
    if not names:
        names = [name for name in run.candidates if control is None or name != control.id][:_MAX_SHOWN]
    candidates = [run.candidates[name] for name in names]
    candidates = [*candidates, *([control] if control is not None else [])]
    return [c for c in candidates if any(_points(m) for m in c.members.values())]


def _styles(facts: Facts, candidates: Sequence[Candidate]) -> list[tuple[str, Any]]:
    """The control is black and dashed, the others as they come."""
    others = [(colour, style) for colour, style, _ in STYLES if colour != BLACK]
    control = facts.run.control
    styles: list[tuple[str, Any]] = []
    i = 0
    for candidate in candidates:
        if candidate is control:
            styles.append((BLACK, (0, (8, 2))))
        else:
            styles.append(others[i % len(others)])
            i += 1
    return styles


def _points(member: Member) -> list[tuple[int, float]]:
    return [(r.step, r.value) for r in member.reports if math.isfinite(r.value) and not r.diverged]


def _grey(axes: Axes, members: Sequence[Member]) -> None:
    from matplotlib.collections import LineCollection

    lines = [points for m in members if len(points := _points(m)) > 1]
    if lines:
        alpha = min(0.6, max(0.12, 30.0 / len(lines)))  # many on top of each other would hide what is below
        axes.add_collection(LineCollection(lines, colors=GREY, linewidths=0.7, alpha=alpha, zorder=1))
        axes.plot([], [], color=GREY, linewidth=0.7, label="all others, one line a seed")
    alone = [points[0] for m in members if len(points := _points(m)) == 1]
    if alone:
        axes.plot(*zip(*alone, strict=True), ".", color=GREY, markersize=3, zorder=1)


def _band(axes: Axes, facts: Facts, candidate: Candidate, style: tuple[str, Any]) -> None:
    colour, dashes = style
    by_step: dict[int, list[float]] = {}
    for member in candidate.members.values():
        for step, value in _points(member):
            by_step.setdefault(step, []).append(value)
    steps = sorted(by_step)
    control = candidate is facts.run.control
    label = candidate.name
    name = shortened(candidate.id if label == candidate.id else f"{candidate.id} {label}", _LABEL)
    name += " (control)" if control else ""
    marker = "o" if len(steps) < 2 else ""
    means = [fmean(by_step[s]) for s in steps]
    axes.plot(steps, means, linestyle=dashes, color=colour, linewidth=2.0, marker=marker, label=name, zorder=3)
    low, high = [min(by_step[s]) for s in steps], [max(by_step[s]) for s in steps]
    axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)


def _frame_curves(
    axes: Axes, facts: Facts, members: Sequence[Member], rest: Sequence[Member], from_step: float
) -> None:
    """From the best of all to the worst shown from a step on: the descent before it would flatten the rest."""
    points = [point for m in members or rest for point in _points(m)]
    values = [v for step, v in points if step >= from_step] or [v for _, v in points]
    others = [v for m in rest for step, v in _points(m) if step >= from_step]
    best = min if facts.run.sign > 0 else max
    ends = [*values, best(others)] if others else values
    margin = 0.05 * (max(ends) - min(ends)) or 0.1
    axes.set_ylim(min(ends) - margin, max(ends) + margin)
