"""The figures behind the verdicts: each check of a threat as one figure, with a line or a row of points a network.

Twenty networks drawn one by one are twenty pictures that nobody compares; drawn together the one that differs stands
out, and the page stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robust.report.curves import slug, style
from robust.report.document import FigureRow, Series

KEPT = ("x_label", "y_label", "caption", "x_log", "y_log", "y_range")
SPREAD = 0.5  # of the distance between two categories, over which the networks stand side by side

Curve = Mapping[str, Any]
Groups = Mapping[str, Sequence[str]]


def evidence_figures(curves: Iterable[Curve], groups: Groups) -> list[FigureRow]:
    """Figures of the curves that parts of a study hand in; those of several networks are joined by what they show.

    Args:
        curves: `{id, title, x_label, y_label, series[{label, x[], y[], low[]?, high[]?}]}`; a network's own name it
            in `model`, and their id starts with it.
        groups: networks of each group, in the study's order.
    """
    kinds: dict[str, list[Curve]] = {}
    for curve in curves:
        kinds.setdefault(_kind(curve), []).append(curve)
    return [figure for kind, own in kinds.items() for figure in _joined(kind, own, groups) if figure.series]


def _kind(curve: Curve) -> str:
    """What a curve shows, the same for all networks."""
    return str(curve["id"]).removeprefix(f"{curve.get('model')}-")


def _joined(kind: str, curves: Sequence[Curve], groups: Groups) -> list[FigureRow]:
    """One figure; one for each series where several networks have several series of a course."""
    curves = [_unnamed(curve, groups) for curve in curves]
    labels = list(dict.fromkeys(row["label"] for curve in curves for row in curve["series"]))
    points = len(labels) > 1 and all(len(row["x"]) <= 1 for curve in curves for row in curve["series"])
    if points:
        return [_figure(kind, curves[0], _compared(curves, labels, groups), labels)]
    if len(curves) == 1:
        series = [Series.model_validate({**style(i), **dict(row)}) for i, row in enumerate(curves[0]["series"])]
        return [_figure(kind, curves[0], series)]
    return [
        _figure(f"{kind}-{label}" if len(labels) > 1 else kind, curves[0], _lines(curves, label, groups),
                title="" if len(labels) == 1 else f"{label}: ")
        for label in labels
    ]  # fmt: skip


def _unnamed(curve: Curve, groups: Groups) -> Curve:
    """The curve whose series do not name other networks: a transfer is a transfer wherever it comes from."""
    others = {f" from {model}" for own in groups.values() for model in own}
    rows = [dict(row) for row in curve["series"]]
    for row in rows:
        for other in others:
            row["label"] = str(row["label"]).removesuffix(other)
    return {**curve, "series": rows}


def _compared(curves: Sequence[Curve], labels: Sequence[str], groups: Groups) -> list[Series]:
    """Each network's single values side by side over the names of what they are values of."""
    found = []
    for place, (curve, look) in enumerate(_looks(curves, groups)):
        shift = SPREAD * (place - (len(curves) - 1) / 2) / len(curves)
        rows = [row for row in curve["series"] if row["x"]]
        limits: dict[str, Any] = {}
        if rows and all(row.get("low") and row.get("high") for row in rows):
            limits = {key: [row[key][0] for row in rows] for key in ("low", "high")}
        x, y = [labels.index(row["label"]) + shift for row in rows], [row["y"][0] for row in rows]
        name = str(curve.get("model") or curve["id"])
        found.append(Series(label=name, mark="points", x=x, y=y, **limits, **look))
    return [series for series in found if series.x]


def _lines(curves: Sequence[Curve], label: str, groups: Groups) -> list[Series]:
    """The series of that name of every network."""
    return [
        Series.model_validate({**row, "label": str(curve.get("model") or curve["id"]), **look})
        for curve, look in _looks(curves, groups)
        for row in curve["series"]
        if row["label"] == label
    ]


def _looks(curves: Sequence[Curve], groups: Groups) -> list[tuple[Curve, dict[str, Any]]]:
    """Curves in the study's order; the seeds of a group share their look, and the first of them carries its name."""
    order = {model: (place, seed) for place, own in enumerate(groups.values()) for seed, model in enumerate(own)}
    last = (len(groups), 0)
    ranked = sorted(curves, key=lambda curve: order.get(str(curve.get("model")), last))
    named: set[int] = set()
    found = []
    for curve in ranked:
        place, _ = order.get(str(curve.get("model")), last)
        direct = len(curves) > 1 and place not in named
        named.add(place)
        found.append((curve, {**style(place), "direct": direct}))
    return found


def _figure(kind: str, curve: Curve, series: Sequence[Series], ticks: Sequence[str] = (), title: str = "") -> FigureRow:
    id = slug("evidence", kind)
    model = curve.get("model")
    name = str(curve["title"]).replace(f"({model}, ", "(") if model else str(curve["title"])
    return FigureRow(
        id=id,
        file=f"{id}.svg",
        csv=f"{id}.csv",
        group="evidence",
        title=f"{title}{name[:1].lower()}{name[1:]}" if title else name,
        series=list(series),
        x_ticks=list(ticks),
        **{key: curve[key] for key in KEPT if key in curve},
    )
