"""The series behind the line figures: accuracy against eps, clean against robust accuracy, training curves.

Nothing is drawn here: each function returns figures as data, which the CSV files and the drawings both come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robust.report.accuracy import Outcomes
from robust.report.cells import size
from robust.report.document import FigureRow, Series
from robust.report.samples import headline
from robust.statistics import wilson

COLOURS = 7  # of the palette; further series repeat them with another dash
PANELS = 12  # figures of one kind that are drawn; the tables hold the rest
GRID = 61  # points of a curve from distances
HISTORY = ("loss", "accuracy", "select_accuracy", "select_loss", "robust_accuracy", "learning_rate")


def slug(*parts: object) -> str:
    """A file name from names that people chose: lower case letters, digits and hyphens."""
    text = "-".join(str(part) for part in parts).lower()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:80] or "figure"


def style(position: int) -> dict[str, int]:
    """Colour and dash of the n-th series, so that a model keeps its look in every figure."""
    return {"colour": position % COLOURS, "dash": position // COLOURS}


def accuracy_curves(outcomes: Outcomes) -> list[FigureRow]:
    """Accuracy against eps: for each norm over all its attacks, then for each model attack by attack."""
    figures = []
    for norm in dict.fromkeys(row["norm"] for row in outcomes.plan.attacks):
        labels = [row["label"] for row in outcomes.plan.attacks if row["norm"] == norm]
        groups = outcomes.plan.groups
        sizes = _sizes(outcomes, [model for models in groups.values() for model in models], labels)
        curves = [
            _curve(outcomes, models, labels, sizes, group, style(position))
            for position, (group, models) in enumerate(groups.items())
        ]
        figures.append(_eps_figure(f"curve-{norm}", "curves", f"{norm}: worst case over attacks", norm, curves))
        if len(labels) > 1 and len(groups) <= PANELS // 2:
            figures += [_attacks_of(outcomes, group, norm, labels) for group in groups]
    return [figure for figure in figures if figure.series]


def _attacks_of(outcomes: Outcomes, group: str, norm: str, labels: Sequence[str]) -> FigureRow:
    names: dict[str, list[str]] = {}
    for label in labels:
        names.setdefault(outcomes.plan.by_label[label]["name"], []).append(label)
    models, after = outcomes.plan.groups[group], len(outcomes.plan.groups)  # no attack looks like a model
    curves = [
        _curve(outcomes, models, own, _sizes(outcomes, models, own), name, style(after + position))
        for position, (name, own) in enumerate(names.items())
    ]
    return _eps_figure(f"curve-{norm}-{slug(group)}", "curves", f"{norm}: {group}, attack by attack", norm, curves)


def _eps_figure(id: str, group: str, title: str, norm: str, curves: Sequence[Series | None]) -> FigureRow:
    return FigureRow(
        id=id,
        file=f"{id}.svg",
        csv=f"{id}.csv",
        group=group,
        title=title,
        caption="Share of samples with no known misclassified image within eps. Band: 95 % Wilson, over all seeds.",
        x_label=f"eps ({norm})",
        y_label="accuracy",
        y_range=(0.0, 1.0),
        series=[curve for curve in curves if curve is not None],
    )


def _curve(
    outcomes: Outcomes,
    models: Sequence[str],
    labels: Sequence[str],
    eps: npt.NDArray[np.float64],
    name: str,
    look: Mapping[str, int],
) -> Series | None:
    """Share of samples whose smallest known distance exceeds eps: mean over seeds, joined Wilson limits."""
    distances = _distances(outcomes, models, labels)
    if not distances:
        return None
    # a size written as a fraction and a float32 distance at that size must meet
    right = np.stack([(d[None] > eps[:, None] * (1 + 1e-5) + 1e-6).sum(1) for d in distances])
    n = np.array([len(d) for d in distances])[:, None]
    low, high = wilson(right, np.broadcast_to(n, right.shape))
    return Series(
        label=name,
        mark="line",
        colour=look["colour"],
        dash=look["dash"],
        x=eps.tolist(),
        y=(right / n).mean(0).tolist(),
        low=low.min(0).tolist(),
        high=high.max(0).tolist(),
    )


def _distances(outcomes: Outcomes, models: Sequence[str], labels: Sequence[str]) -> list[npt.NDArray[np.float64]]:
    found = [_smallest(outcomes, model, labels) for model in models]
    return [distances for distances in found if distances is not None and len(distances)]


def _smallest(outcomes: Outcomes, model: str, labels: Sequence[str]) -> npt.NDArray[np.float64] | None:
    """Smallest distance known [N] over attacks; 0 where the model is wrong unattacked."""
    frames = [outcomes.cells[model, label] for label in labels if (model, label) in outcomes.cells]
    if not frames:
        return None
    found = [
        np.where(frame["success"].fillna(False).to_numpy(bool), frame["distance"].to_numpy(float), np.inf)
        for frame in frames
    ]
    if len({tuple(frame["sample"]) for frame in frames}) == 1:
        smallest: npt.NDArray[np.float64] = np.min(np.stack(found), axis=0)
    else:
        smallest = found[0]
        for frame, other in zip(frames[1:], found[1:]):
            _, own, theirs = np.intersect1d(frames[0]["sample"], frame["sample"], return_indices=True)
            smallest[own] = np.minimum(smallest[own], other[theirs])
    return np.where(np.isnan(smallest), np.inf, smallest)


def _sizes(outcomes: Outcomes, models: Sequence[str], labels: Sequence[str]) -> npt.NDArray[np.float64]:
    """The sizes attacked at; a fine grid if an attack looked for the smallest distance."""
    bounded = {size(outcomes.plan.by_label[label]["eps"]) for label in labels} - {np.inf}
    if all(outcomes.plan.by_label[label]["eps"] for label in labels):
        return np.array(sorted({0.0, *bounded}))
    finite = np.concatenate([np.zeros(0), *(d[np.isfinite(d)] for d in _distances(outcomes, models, labels))])
    end = max([*bounded, float(np.quantile(finite, 0.99)) if len(finite) else 0.0]) or 1.0
    return np.unique(np.concatenate([np.linspace(0, end, GRID), sorted(bounded)]))


def trade_off(outcomes: Outcomes) -> list[FigureRow]:
    """Clean against robust accuracy under the headline threat, one point a model."""
    label, clean = headline(outcomes), outcomes.plan.clean
    if label is None or clean is None:
        return []
    series = []
    for position, (group, models) in enumerate(outcomes.plan.groups.items()):
        both = [m for m in models if outcomes.present(m, label) and outcomes.present(m, clean)]
        if not both:
            continue
        x = [float(outcomes.correct(m, clean)[1].mean()) for m in both]
        hits = [outcomes.correct(m, label)[1] for m in both]
        low, high = wilson([h.sum() for h in hits], [len(h) for h in hits])
        y = [float(h.mean()) for h in hits]
        series.append(
            Series(label=group, mark="points", **style(position), x=x, y=y, low=low.tolist(), high=high.tolist())
        )
    figure = FigureRow(
        id="trade-off",
        file="trade-off.svg",
        csv="trade-off.csv",
        group="trade-off",
        title="Clean against robust accuracy",
        caption=f"One point a trained network; robust accuracy: {label}, bars: 95 % Wilson intervals.",
        x_label="clean accuracy",
        y_label="robust accuracy",
        y_range=(0.0, 1.0),
        series=series,
    )
    return [figure] if series else []


def training(history: Iterable[Mapping[str, Any]], models: Sequence[str]) -> list[FigureRow]:
    """Training curves: one figure for each quantity that the history holds, one line a network."""
    rows = list(history)
    there = {key for row in rows for key, value in row.items() if isinstance(value, int | float)}
    further = sorted(there - {"epoch", "seed", *HISTORY})  # what the objective logs of itself
    quantities = [*(q for q in HISTORY if q in there), *further][:PANELS]
    figures = []
    for quantity in quantities:
        series = []
        for position, model in enumerate(models):
            points = sorted(
                (float(row["epoch"]), float(row[quantity]))
                for row in rows
                if row.get("model") == model and row.get(quantity) is not None and np.isfinite(row[quantity])
            )
            if points:
                x, y = map(list, zip(*points))
                series.append(Series(label=model, **style(position), direct=len(models) <= COLOURS, x=x, y=y))
        id = slug("training", quantity)
        figures.append(
            FigureRow(
                id=id,
                file=f"{id}.svg",
                csv=f"{id}.csv",
                group="training",
                title=quantity.replace("_", " "),
                x_label="epoch",
                y_label=quantity.replace("_", " "),
                y_log="loss" in quantity and all(y > 0 for s in series for y in s.y),
                series=series,
            )
        )
    return [figure for figure in figures if figure.series]
