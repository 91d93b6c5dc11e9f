"""What diagnostics measured: rows with their group and seed, figures by network, and grids of images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robust.report.cells import Plan, ReportError
from robust.report.curves import slug, style
from robust.report.document import FigureRow, MeasuredRow, PictureRow, Series, tidy
from robust.report.examples import png

GRID_PIXELS = 640  # of the longer side of a grid of images
BUDGET = 700_000  # characters of grids in one report, which must stay under 3 MB
DWARFED = 10.0  # times the smallest span that the largest may have on a common scale
OPTIONAL = ("x_label", "y_label", "caption", "x_log", "y_log", "x_range", "y_range", "x_ticks", "diagonal", "paper")


def measured_rows(rows: Iterable[Mapping[str, Any]], plan: Plan) -> list[MeasuredRow]:
    """The diagnostics' rows, each with the group and the seed of its network."""
    seeds = {row["id"]: row.get("seed") for row in plan.models}
    found = []
    for row in rows:
        model = str(row["model"])
        known = {"group": plan.group_of.get(model, model), "seed": seeds.get(model)}
        found.append(MeasuredRow.model_validate(tidy({**known, **{k: v for k, v in row.items() if v is not None}})))
    return found


def diagnostic_figures(figures: Iterable[Mapping[str, Any]]) -> list[FigureRow]:
    """The diagnostics' figures, named `<diagnostic>-<network>-<id>`; points that are not numbers are left out.

    Args:
        figures: `{model, diagnostic, id, title, x_label, y_label, series[]}` and optional keys of `FigureRow`.
    """
    found = [figure for figure in map(_figure, figures) if figure.series]
    kinds: dict[str, list[FigureRow]] = {}
    for figure in found:
        kinds.setdefault(figure.kind, []).append(figure)
    ranges = {kind: _shared_range(own) for kind, own in kinds.items()}
    return [figure.model_copy(update={"y_range": figure.y_range or ranges[figure.kind]}) for figure in found]


def _shared_range(figures: Sequence[FigureRow]) -> tuple[float, float] | None:
    """One scale for the same figure of several networks, unless one of them would dwarf the others."""
    if len(figures) < 2 or any(figure.y_log or figure.y_range for figure in figures):
        return None
    heights = [_heights(figure) for figure in figures]
    ends = [(min(values, default=0.0), max(values, default=0.0)) for values in heights]
    spans = [high - low for low, high in ends]
    if min(spans) <= 0 or max(spans) > DWARFED * min(spans):
        return None
    zero = any(s.mark in ("bars", "histogram") for figure in figures for s in figure.series)
    return (min(0.0 if zero else low for low, _ in ends), max(high for _, high in ends))


def _heights(figure: FigureRow) -> list[float]:
    """Every height in a figure, limits included; rules have none."""
    drawn = [s for s in figure.series if s.mark != "rule"]
    return [value for s in drawn for heights in (s.y, s.low or [], s.high or []) for value in heights]


def _figure(figure: Mapping[str, Any]) -> FigureRow:
    id = slug(figure["diagnostic"], figure["model"], figure["id"])
    series = [_series({**style(i), **dict(row)}) for i, row in enumerate(figure["series"])]
    known = {key: figure[key] for key in OPTIONAL if figure.get(key) is not None}
    positive = {axis: all(v > 0 for s in series for v in getattr(s, axis)) for axis in ("x", "y")}
    known |= {f"{axis}_log": bool(figure.get(f"{axis}_log")) and positive[axis] for axis in ("x", "y")}
    return FigureRow(
        id=id,
        file=f"{id}.svg",
        csv=f"{id}.csv",
        group=f"diagnostic-{figure['diagnostic']}",
        title=str(figure["title"]),
        model=str(figure["model"]),
        kind=slug(figure["diagnostic"], figure["id"]),
        series=[s for s in series if s.x],
        **known,
    )


def _series(row: dict[str, Any]) -> Series:
    x, y = (np.asarray(row[key], float).ravel() for key in ("x", "y"))
    keep = np.isfinite(x) & np.isfinite(y)
    found = {**row, "x": x[keep].tolist(), "y": y[keep].tolist()}
    for limit in ("low", "high"):
        if row.get(limit) is not None:
            values = np.asarray(row[limit], float).ravel()
            found[limit] = np.where(np.isfinite(values), values, y)[keep].tolist()
    if row.get("count") is not None:
        found["count"] = np.asarray(row["count"])[keep].astype(int).tolist()
    return Series.model_validate(found)


def picture_rows(pictures: Iterable[Mapping[str, Any]]) -> tuple[list[PictureRow], int]:
    """The diagnostics' grids as PNGs, in the order given, until the budget of bytes is spent; and how many were left.

    Args:
        pictures: `{model, diagnostic, id, title, caption, images: uint8 [R,C,H,W], columns}`.
    """
    kept: list[PictureRow] = []
    left, spent = 0, 0
    for picture in pictures:
        grid = grid_of(np.asarray(picture["images"]), int(picture.get("columns") or 0))
        image = png(grid, GRID_PIXELS)
        if spent + len(image) > BUDGET:
            left += 1
            continue
        spent += len(image)
        kept.append(
            PictureRow(
                id=slug(picture["diagnostic"], picture["model"], picture["id"]),
                model=str(picture["model"]),
                diagnostic=str(picture["diagnostic"]),
                title=str(picture["title"]),
                caption=str(picture.get("caption") or ""),
                paper=str(picture.get("paper") or ""),
                image=image,
                width=grid.shape[2],
                height=grid.shape[1],
            )
        )
    return kept, left


def grid_of(images: npt.NDArray, columns: int = 0) -> npt.NDArray[np.uint8]:
    """Images uint8 [R,C,H,W] side by side, row by row, as one image [C,...] with a pixel of white between.

    Raises:
        ReportError: if the images are not uint8 [R,C,H,W].
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
        raise ReportError(f"pictures: images must be uint8 [R,C,H,W], got {images.dtype} {images.shape}")
    R, C, H, W = images.shape
    columns = min(columns or math.ceil(math.sqrt(R)), R)
    rows = math.ceil(R / columns)
    grid = np.full((C, rows * (H + 1) - 1, columns * (W + 1) - 1), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (H + 1), i % columns * (W + 1)
        grid[:, top : top + H, left : left + W] = image
    return grid
