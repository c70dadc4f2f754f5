"""Draws a diagnostic's `analysis.diagnose.api.Plot`, and writes figures as SVG or PNG that a page holds inside itself.

Okabe-Ito colours, and never colour alone: line styles and markers say the same, so that print and colour-blind readers
lose nothing. Matplotlib is loaded when something is drawn; a bare `Figure` renders with Agg, without a display and
without pyplot's global state.

Source of the colours: M. Okabe and K. Ito, Color Universal Design (2008).
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

from analysis.diagnose.api import Plot, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, ORANGE, GREEN, BLUE, RED = ("#000000", "#E69F00", "#009E73", "#0072B2", "#D55E00")
_PURPLE = "#CC79A7"
GREY = "#8A8A8A"
DPI = 150

STYLES: tuple[tuple[str, Any, str], ...] = (
    (BLUE, "-", "o"),
    (RED, "--", "s"),
    (GREEN, "-.", "^"),
    (_PURPLE, ":", "D"),
    (ORANGE, (0, (5, 1, 1, 1, 1, 1)), "v"),
    (BLACK, (0, (8, 2)), "P"),
)
"""Colour, line style and marker of the first, second ... thing drawn; what comes after the last begins again."""
_WIDTH = 7.2
HEIGHT = 3.6
"""Inches of a figure on the page."""

_HATCHES = ("", "///", "\\\\\\", "xxx", "---", "++")  # no dots: each is a circle in SVG
_MAX_TICKS = 40  # names on an axis; of more, every second, third ...
_LEGEND_WIDTH = 88  # characters below a figure
_HANDLE = 9  # as wide as so many, with the space around it
_MAX_MARKED = 40  # points of a line that get markers
_RC: dict[Any, Any] = {
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",  # letters stay letters: small, searchable, sharp in print
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "figure.titlesize": 10.0,
    "legend.fontsize": 8.0,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.2,
}
_SHARED = re.compile(r'(\bid="|href="#|url\(#)')
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_serial = count(1)


@dataclass(frozen=True)
class Picture:
    """A drawn figure for a page: an ``svg`` or ``img`` element, and a sentence below it and for screen readers."""

    markup: str
    caption: str


def draw(plot: Plot, caption: str = "") -> Picture:
    """One plot of a finding, as SVG. Values that are not finite leave gaps; a plot without any says so."""

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_title(plot.title, loc="left")
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel(plot.y_label)
        if plot.kind == "heat":
            _heat(figure, axes, plot)
        else:
            _series(axes, plot)

    return picture(fill, caption or plot.title, width=_WIDTH * 0.75, height=HEIGHT * 0.9)


def picture(
    fill: Callable[[Figure], None], caption: str, *, width: float = _WIDTH, height: float = HEIGHT, as_png: bool = False
) -> Picture:
    """What ``fill`` draws on an empty figure of so many inches; a PNG where SVG would be large, of many lines."""
    with figure_of(width, height) as figure:
        fill(figure)
        body = io.BytesIO()
        if as_png:
            figure.savefig(body, format="png", dpi=DPI)
            return png_picture(body.getvalue(), caption)
        figure.savefig(body, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(_inline(body.getvalue().decode(), caption), caption)


def png_picture(png: bytes, caption: str) -> Picture:
    """A PNG as a picture that holds it."""
    data = base64.b64encode(png).decode()
    return Picture(f'<img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">', caption)


def frame(axes: Axes) -> None:
    """Axes without a box, with light lines to read values by."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def logarithmic(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Logarithmic axes whose numbers are plain: matplotlib's own are formulas, which we do not parse."""
    from matplotlib.ticker import FuncFormatter, LogFormatter

    class Plain(LogFormatter):
        """Matplotlib's choice of which ticks get a number, and the number as a reader writes it."""

        def __call__(self, value: float, pos: int | None = None) -> str:
            return f"{value:,.12g}" if super().__call__(value, pos) else ""

    for wanted, set_scale, axis in ((x, axes.set_xscale, axes.xaxis), (y, axes.set_yscale, axes.yaxis)):
        if wanted:
            set_scale("log")
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
            axis.set_minor_formatter(Plain())


def nothing(axes: Axes, why: str) -> None:
    """Says why there is nothing, and shows no scale: there is nothing that it could be of."""
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def axis_label(text: str, unit: str) -> str:
    """``val_nll (nats)``, or the text alone where there is no unit."""
    return f"{text} ({unit})" if unit else text


def shortened(name: str, length: int) -> str:
    """The name in at most so many characters."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


@contextmanager
def figure_of(width: float, height: float) -> Iterator[Figure]:
    """An empty figure in inches; what is drawn or saved in the block has our style."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC):
        yield Figure(figsize=(width, height), layout="constrained")


def _inline(svg: str, caption: str) -> str:
    """An ``svg`` element that can stand in a page beside others: no prologue, and names that are its own."""
    body = _METADATA.sub("", svg[svg.index("<svg") :])
    prefix = f"p{next(_serial)}-"
    body = _SHARED.sub(rf"\g<1>{prefix}", body)
    label = html.escape(caption)
    return body.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def _series(axes: Axes, plot: Plot) -> None:
    finite = [s for s in plot.series if any(map(math.isfinite, s.y))]
    if not finite:
        nothing(axes, "nothing finite to show")
        return
    drawn = {"line": _line, "bar": _bars, "points": _points}[plot.kind]
    for i, series in enumerate(finite):
        drawn(axes, series, i, len(finite))
    for i, (label, y) in enumerate(plot.lines.items()):
        if math.isfinite(y):
            style = ("--", ":", "-.")[i % 3]
            axes.axhline(y, color=BLACK, linewidth=1.1, linestyle=style, label=label, zorder=1)
    logarithmic(axes, x=plot.log_x, y=plot.log_y)
    _named_ticks(axes, plot.x_ticks)
    frame(axes)
    labelled = [label for label in axes.get_legend_handles_labels()[1] if label]
    if len(labelled) > 1 or plot.lines:
        axes.figure.legend(loc="outside lower center", ncols=_legend_columns(labelled), frameon=False)


def _legend_columns(labels: Sequence[str]) -> int:
    """As many as fit side by side below a figure, four at the most."""
    return max(1, min(4, len(labels), _LEGEND_WIDTH // (max(map(len, labels)) + _HANDLE)))


def _style(i: int) -> tuple[str, Any, str]:
    """Of the i-th thing drawn; from the second round of colours on with another marker, so that no two are alike."""
    colour, style, _ = STYLES[i % len(STYLES)]
    return colour, style, STYLES[(i + i // len(STYLES)) % len(STYLES)][2]


def _line(axes: Axes, series: Series, i: int, _num: int) -> None:
    colour, style, marker = _style(i)
    many = len(series.x) > _MAX_MARKED
    axes.plot(
        series.x,
        series.y,
        linestyle=style,
        color=colour,
        linewidth=1.8,
        marker="" if many else marker,
        markersize=4,
        label=series.label,
        zorder=3,
    )
    if series.low and series.high:
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, linewidth=0, zorder=2)


def _points(axes: Axes, series: Series, i: int, _num: int) -> None:
    colour, _, marker = _style(i)
    errors = _errors(series)
    style: dict[str, Any] = {"fmt": marker, "color": colour, "markersize": 5, "elinewidth": 1.3, "capsize": 3}
    axes.errorbar(series.x, series.y, errors, label=series.label, zorder=3, **style)


def _bars(axes: Axes, series: Series, i: int, num: int) -> None:
    width = 0.8 / num * _spacing(series.x)
    at = [x + (i - (num - 1) / 2) * width for x in series.x]
    axes.bar(
        at,
        series.y,
        width * 0.94,
        yerr=_errors(series),
        color=STYLES[i % len(STYLES)][0],
        hatch=_HATCHES[i % len(_HATCHES)],
        edgecolor="white" if num > 1 else "none",
        capsize=3,
        label=series.label,
        zorder=2,
    )


def _spacing(x: Sequence[float]) -> float:
    ordered = sorted(set(x))
    return min((b - a for a, b in pairwise(ordered)), default=1.0)


def _errors(series: Series) -> list[list[float]] | None:
    if not (series.low and series.high):
        return None
    below = [max(0.0, y - low) for y, low in zip(series.y, series.low, strict=True)]
    above = [max(0.0, high - y) for y, high in zip(series.y, series.high, strict=True)]
    return [below, above]


def _heat(figure: Figure, axes: Axes, plot: Plot) -> None:
    rows = [list(row) for row in plot.grid]
    values = [v for row in rows for v in row if math.isfinite(v)]
    if not values:
        nothing(axes, "nothing finite to show")
        return
    signed = min(values) < 0.0 < max(values)
    most = max(map(abs, values))
    # Light to dark in one hue, so that a print without colour reads the same; two hues only around a zero.
    ends = {"cmap": "PuOr", "vmin": -most, "vmax": most} if signed else {"cmap": "Blues"}
    image = axes.imshow(rows, aspect="auto", interpolation="nearest", **ends)
    figure.colorbar(image, ax=axes, fraction=0.05)
    _named_ticks(axes, plot.x_ticks)
    if len(plot.x_ticks) == len(rows) == len(rows[0]):  # a square: the same things both ways
        every = math.ceil(len(rows) / _MAX_TICKS)
        axes.set_yticks(range(0, len(rows), every), plot.x_ticks[::every])


def _named_ticks(axes: Axes, names: Sequence[str]) -> None:
    if not names:
        return
    every = math.ceil(len(names) / _MAX_TICKS)
    places = range(0, len(names), every)
    long = max(map(len, names)) * len(places) > 70
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(list(places), [names[i] for i in places], **turned)
