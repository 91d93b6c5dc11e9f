"""Accuracy of every group under every evaluation as bars: the mean over seeds, its interval, and the seeds as dots."""

from __future__ import annotations

from collections.abc import Sequence

from robust.report.accuracy import Outcomes
from robust.report.curves import COLOURS, style
from robust.report.document import FigureRow, GroupRow, Series

EVALUATIONS = 10  # that have room side by side
SPREAD = 0.84  # of the distance between two evaluations that their bars fill


def accuracy_bars(outcomes: Outcomes, groups: Sequence[GroupRow]) -> list[FigureRow]:
    """One figure for all groups and the first evaluations; none for a single network or very many groups."""
    names = list(outcomes.plan.groups)
    found = {(row.group, row.label): row for row in groups}
    frames = outcomes.plan.frames
    labels = [row["label"] for row in outcomes.plan.evaluations if row["eps"] or not row["norm"]]  # with an accuracy
    labels = [label for label in labels if label not in frames]
    labels = [label for label in labels if any((name, label) in found for name in names)][:EVALUATIONS]
    if len(outcomes.plan.models) < 2 or len(names) > COLOURS or len(labels) < 2:
        return []
    width = SPREAD / len(names)
    series: list[Series] = []
    for position, name in enumerate(names):
        shift = (position - (len(names) - 1) / 2) * width
        own = [(i + shift, found[name, label]) for i, label in enumerate(labels) if (name, label) in found]
        if own:
            series.append(_bars(name, position, own, 0.9 * width))
            series += [_dots(outcomes, name, position, own)] if any(row.seeds > 1 for _, row in own) else []
    figure = FigureRow(
        id="bars-accuracy",
        file="bars-accuracy.svg",
        csv="bars-accuracy.csv",
        group="bars",
        title="Accuracy under every evaluation",
        caption="Bars: mean over seeds with Student's 95 % interval; dots: the seeds.",
        y_label="accuracy",
        y_range=(0.0, 1.0),
        x_ticks=labels,
        series=series,
    )
    return [figure]


def _bars(name: str, position: int, own: Sequence[tuple[float, GroupRow]], width: float) -> Series:
    low = [row.mean if row.low is None else row.low for _, row in own]
    high = [row.mean if row.high is None else row.high for _, row in own]
    x, y = [x for x, _ in own], [row.mean for _, row in own]
    return Series(label=name, mark="bars", width=width, **style(position), x=x, y=y, low=low, high=high)


def _dots(outcomes: Outcomes, name: str, position: int, own: Sequence[tuple[float, GroupRow]]) -> Series:
    models = outcomes.plan.groups[name]
    apart = SPREAD / len(outcomes.plan.groups) / (len(models) + 1)  # side by side, or equal seeds would hide each other
    points = [
        (x + (i - (len(models) - 1) / 2) * apart, float(outcomes.correct(model, row.label)[1].mean()))
        for x, row in own
        for i, model in enumerate(models)
        if outcomes.present(model, row.label)
    ]
    x, y = [x for x, _ in points], [y for _, y in points]
    return Series(label=f"{name}, seeds", mark="points", **style(position), direct=False, x=x, y=y)
