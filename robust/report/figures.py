"""Draws the figures of a report as SVG: small panels, labelled directly, the same bytes for the same data.

Text stays text, so that it takes the page's font; colours are named in one palette, so that the page can swap them in
the dark. Hue, marker and dash all tell the series apart, so no reader depends on colour alone.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from robust.report.document import FigureRow, Series
from robust.report.svg import compact

# Okabe and Ito's colours, darkened until each has contrast 3:1 on white; the page holds their dark counterparts
PALETTE = ("#0072b2", "#d55e00", "#00835f", "#b4578f", "#a86f00", "#2f93cc", "#5b6470")
INK, MUTED, GRID = "#1f2429", "#69727d", "#e3e6ea"
MARKERS = "os^DvPX"
DASHES: tuple[tuple[float, ...], ...] = ((), (4, 2), (1, 1.5), (6, 2, 1, 2))
WIDTH, HEIGHT = 4.5, 3.1  # inches
FONT = 9.0
CLOUD = 800  # points of a cloud that are drawn; the CSV has all
FEW = 6  # points that carry their name among them
LABELLED = 12  # series that get a label at their end, or limits; more would cover each other
SHORT = 24  # characters of a name
NAMED = 18  # characters of a category whose name is turned
TURN = 32  # degrees
SHARES = re.compile(r"accuracy|\bshare\b")  # names of quantities in [0,1]

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "robust",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": FONT,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.major.size": 0,  # the grid marks the places
    "ytick.major.size": 0,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": FONT - 1,
    "ytick.labelsize": FONT - 1,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
}


def draw(figure: FigureRow) -> str:
    """One figure as a complete SVG document."""
    # names may hold characters that the measuring font lacks; the reader's font draws them
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        drawing = Figure(figsize=(WIDTH, HEIGHT))
        counted = [s for s in figure.series if s.mark == "bars" and s.count]
        margin = _label_margin(figure)
        bottom = 0.34 if counted else _tick_room(figure)
        axes = drawing.add_axes((0.125, bottom, 0.86 - margin, 0.965 - bottom))
        _frame(axes, figure)
        _ticks(axes, figure)
        for series in sorted(figure.series, key=lambda series: series.mark == "rule"):  # last: the axes must be known
            _MARKS[series.mark](axes, _uncrowded(series, figure))
        if any(series.mark == "histogram" for series in figure.series):
            axes.set_ylim(bottom=0)
        _within(axes, figure)
        left = max(_left(axes), _first_tick(axes, figure, margin))
        axes.set_position((left, bottom, 0.985 - left - margin, 0.965 - bottom))
        _ends(axes, figure)
        if counted:
            strip = drawing.add_axes((left, 0.155, 0.985 - left - margin, 0.135), sharex=axes)
            _strip(strip, counted[0], figure.x_label)
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)
        target = io.StringIO()
        drawing.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return compact(target.getvalue(), figure.id, GRID)


def _left(axes: Axes) -> float:
    """Share of the width that the numbers of the scale and its name need."""
    low, high = axes.get_ylim()
    texts = [_number(place, None) for place in axes.get_yticks() if low <= place <= high]
    return max(0.125, ((FONT - 1) * 0.6 * max(map(len, texts), default=0) + 2 * FONT) / 72 / WIDTH)


def _first_tick(axes: Axes, figure: FigureRow, margin: float) -> float:
    """Share of the width left of the axes that the first category's name needs where names are turned."""
    if not _turned(figure):
        return 0.0
    low, high = axes.get_xlim()
    length = len(_short(figure.x_ticks[0], NAMED)) * (FONT - 1) * 0.56 * math.cos(math.radians(TURN)) / 72 / WIDTH
    return length - (0.86 - margin) * (0 - low) / (high - low)


def _uncrowded(series: Series, figure: FigureRow) -> Series:
    """The series without its limits where many would hide one another; the CSV has them."""
    crowded = series.mark in ("line", "points") and sum(bool(s.low) for s in figure.series) > LABELLED
    return series.model_copy(update={"low": None, "high": None}) if crowded else series


def _frame(axes: Axes, figure: FigureRow) -> None:
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)
    for axis, log in ((axes.xaxis, figure.x_log), (axes.yaxis, figure.y_log)):
        if log:
            (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
            axis.set_minor_formatter(NullFormatter())
        else:
            axis.set_major_locator(MaxNLocator(6))
        axis.set_major_formatter(FuncFormatter(_number))
    if figure.x_range:
        axes.set_xlim(*figure.x_range)
    if figure.y_range:
        low, high = figure.y_range
        axes.set_ylim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    if figure.diagonal:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, dashes=(3, 2))


def _within(axes: Axes, figure: FigureRow) -> None:
    """Keep the scales of shares within [0,1], but for room too small to hold a tick: none is more than all."""
    scales = (
        (figure.x_label, figure.x_range or figure.x_log, axes.get_xlim, axes.set_xlim),
        (figure.y_label, figure.y_range or figure.y_log, axes.get_ylim, axes.set_ylim),
    )
    for label, settled, limits, limit in scales:
        low, high = limits()
        if settled or not SHARES.search(label) or low < -0.2 or high > 1.2:  # beyond room around shares: percentages
            continue
        low, high = max(low, 0.0), min(high, 1.0)
        room = 0.02 * (high - low)
        limit(low - room * (low == 0), high + room * (high == 1))


def _turned(figure: FigureRow) -> bool:
    """Whether names of categories are too long to stand side by side."""
    room = 60 * (0.86 - _label_margin(figure)) / 0.86
    names = [len(_short(name)) + 2 for name in figure.x_ticks]
    return any((a + b) / 2 > room / len(names) for a, b in pairwise(names))  # each has its middle on its own place


def _tick_room(figure: FigureRow) -> float:
    """Share of the height below the axes; names of categories that are turned need more."""
    longest = max((len(_short(name, NAMED)) for name in figure.x_ticks), default=0)
    room = 0.05 + 0.0115 * longest + (0.06 if figure.x_label else 0.0)
    return room if _turned(figure) else 0.155


def _ticks(axes: Axes, figure: FigureRow) -> None:
    """Names of the categories, turned where they would touch."""
    if figure.x_ticks:
        turned: dict[str, Any] = {"rotation": TURN, "ha": "right", "rotation_mode": "anchor"} if _turned(figure) else {}
        names = [_short(name, NAMED if turned else SHORT) for name in figure.x_ticks]
        axes.set_xticks(range(len(figure.x_ticks)), names, **turned)
        axes.grid(visible=False, axis="x")


def _number(value: float, position: int | None) -> str:
    return f"{value:.6g}".replace("-", "−")


def _line(axes: Axes, series: Series) -> None:
    colour, dash = PALETTE[series.colour % len(PALETTE)], DASHES[series.dash % len(DASHES)]
    marker = MARKERS[series.colour % len(MARKERS)] if len(series.x) <= 20 else ""
    axes.plot(series.x, series.y, color=colour, dashes=dash, marker=marker, markeredgewidth=0)
    if series.low and series.high:
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.16, linewidth=0)


def _steps(axes: Axes, series: Series) -> None:
    dash = DASHES[series.dash % len(DASHES)]
    axes.plot(series.x, series.y, color=PALETTE[series.colour % len(PALETTE)], dashes=dash, drawstyle="steps-post")


def _points(axes: Axes, series: Series) -> None:
    colour, every = PALETTE[series.colour % len(PALETTE)], slice(None, None, -(-len(series.x) // CLOUD) or 1)
    if series.low and series.high:
        axes.vlines(series.x[every], series.low[every], series.high[every], color=colour, linewidth=1.2, alpha=0.6)
    x, y, marker = series.x[every], series.y[every], MARKERS[series.colour % len(MARKERS)]
    # a cloud of many, or dots that only accompany bars, must not hide what they stand on
    size, alpha = (3.0, 0.45) if len(x) > 60 else (6.0, 1.0) if series.direct else (3.0, 0.9)
    axes.plot(x, y, color=colour, marker=marker, linestyle="", markersize=size, markeredgewidth=0, alpha=alpha)


def _bars(axes: Axes, series: Series) -> None:
    colour = PALETTE[series.colour % len(PALETTE)]
    gaps = [b - a for a, b in pairwise(sorted(set(series.x)))]
    width = series.width or 0.92 * min(gaps, default=1.0)
    axes.bar(series.x, series.y, width=width, color=colour, alpha=0.32, linewidth=0)
    axes.hlines(series.y, [x - width / 2 for x in series.x], [x + width / 2 for x in series.x], color=colour)
    if series.low and series.high:
        axes.vlines(series.x, series.low, series.high, color=colour, linewidth=0.9)


def _histogram(axes: Axes, series: Series) -> None:
    colour, dash = PALETTE[series.colour % len(PALETTE)], DASHES[series.colour % len(DASHES)]
    axes.fill_between(series.x, series.y, step="mid", color=colour, alpha=0.18, linewidth=0)
    axes.plot(series.x, series.y, color=colour, dashes=dash, drawstyle="steps-mid", linewidth=1.2)


def _rule(axes: Axes, series: Series) -> None:
    """Vertical lines, named at their head: a restart, a mean, an end of time."""
    for x in series.x:
        axes.axvline(x, color=MUTED, linewidth=0.9, dashes=(3, 2))
    if series.x and series.direct:
        place = axes.get_xaxis_transform().transform((series.x[0], 0.5))
        right = axes.transAxes.inverted().transform(place)[0] > 0.8  # no room on that side
        at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "xytext": (-3 if right else 3, -2)}
        look = {"color": MUTED, "va": "top", "ha": "right" if right else "left", "fontsize": FONT - 1.5}
        axes.annotate(_short(series.label), (series.x[0], 1.0), **{**at, **look})  # type: ignore[arg-type]


_MARKS = {"line": _line, "steps": _steps, "points": _points, "bars": _bars, "histogram": _histogram, "rule": _rule}


def _strip(axes: Axes, series: Series, label: str) -> None:
    """How many images each bar stands on."""
    axes.bar(series.x, series.count or [], width=0.046, color=MUTED, alpha=0.55, linewidth=0)
    axes.set_ylim(0, max(series.count or [1]) * 1.05)
    axes.set_yticks([0, max(series.count or [1])])
    axes.set_xlabel(label)
    axes.set_ylabel("images")
    axes.grid(visible=False)


def _labelled(figure: FigureRow) -> list[Series]:
    found = [s for s in figure.series if s.direct and s.x and s.mark != "rule"]
    return found if len(found) <= LABELLED else []


def _label_margin(figure: FigureRow) -> float:
    """Share of the width that labels at the right need; histograms and small clouds carry them inside."""
    lines = [s for s in _labelled(figure) if _beside(s, figure) and s.mark != "histogram" and not figure.diagonal]
    longest = max((len(_short(s.label)) for s in lines), default=0)
    return min(0.36, longest * FONT * 0.56 / 72 / WIDTH) + 0.02 if lines else 0.0


def _beside(series: Series, figure: FigureRow) -> bool:
    """Whether a name stands at the right of the axes; that of a few points stands beside them."""
    return series.mark != "points" or len(series.x) > FEW or bool(figure.x_ticks)


def _ends(axes: Axes, figure: FigureRow) -> None:
    """Write each series' name beside it, moved apart where two would touch."""
    found = _labelled(figure)
    if not found:
        return
    if figure.diagonal or found[0].mark == "histogram":
        _corner(axes, found, 0.03 if figure.diagonal else _emptier_side(found))
        return
    axes.get_xlim(), axes.get_ylim()  # settles the scales, which the next line reads
    to_axes = axes.transData + axes.transAxes.inverted()
    places = [to_axes.transform(_anchor(s, axes, figure)) for s in found]
    for series, (x, _), height in zip(found, places, _apart([y for _, y in places])):
        line = _beside(series, figure)
        left = line or x <= 0.5  # a cloud's name stands on the side that has room
        axes.annotate(
            _short(series.label),
            (1.0 if line else x, height),
            xycoords="axes fraction",
            xytext=((4 if line else 8) * (1 if left else -1), 0),
            textcoords="offset points",
            color=PALETTE[series.colour % len(PALETTE)],
            ha="left" if left else "right",
            va="center",
            fontsize=FONT - 0.5,
            annotation_clip=False,
        )


def _anchor(series: Series, axes: Axes, figure: FigureRow) -> tuple[float, float]:
    """Where a name belongs: the end of a line; the outer point of a cloud, away from the nearer edge."""
    if series.mark == "bars":
        return series.x[-1], series.y[-1]
    if series.mark == "points" and _beside(series, figure):
        return max(series.x), sorted(series.y)[len(series.y) // 2]
    if series.mark != "points":
        return max(zip(series.x, series.y))
    low, high = axes.get_xlim()
    points = list(zip(series.x, series.y))
    return max(points) if sum(series.x) / len(series.x) <= (low + high) / 2 else min(points)


def _corner(axes: Axes, found: Sequence[Series], left: float) -> None:
    """Names in a corner of the axes, for figures whose series have no ends."""
    right = left > 0.5
    for row, series in enumerate(found):
        axes.text(
            left,
            0.95 - 0.085 * row,
            _short(series.label),
            transform=axes.transAxes,
            color=PALETTE[series.colour % len(PALETTE)],
            ha="right" if right else "left",
            va="top",
            fontsize=FONT - 0.5,
        )


def _emptier_side(found: Sequence[Series]) -> float:
    """0.03 or 0.97: the side of a histogram with less mass, where the names hide nothing."""
    left = sum(sum(s.y[: len(s.y) // 2]) for s in found)
    right = sum(sum(s.y[len(s.y) // 2 :]) for s in found)
    return 0.03 if left < right else 0.97


def _apart(heights: Sequence[float], gap: float = 0.068) -> list[float]:
    """Heights in [0,1] moved up and down just enough that each keeps its distance, in the same order."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed: list[float] = []
    for i in order:
        placed.append(max(heights[i], placed[-1] + gap) if placed else heights[i])
    placed[-1:] = [min(p, 1.0) for p in placed[-1:]]
    for j in range(len(placed) - 2, -1, -1):
        placed[j] = min(placed[j], placed[j + 1] - gap)
    moved = dict(zip(order, placed))
    return [moved[i] for i in range(len(heights))]


def _short(label: str, limit: int = SHORT) -> str:
    return label if len(label) <= limit else label[: limit - 1] + "…"


def themed(svg: str) -> str:
    """The drawing with its colours as variables of the page, which change in the dark."""
    names = {colour: f"c{i}" for i, colour in enumerate(PALETTE)} | {INK: "ink", MUTED: "muted", GRID: "grid"}
    return re.sub("|".join(names), lambda m: f"var(--{names[m[0]]}, {m[0]})", svg)
