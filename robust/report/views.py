"""What the page shows of claims, measurements and published numbers: long tables cut, seeds joined, figures grouped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robust.report.document import FigureRow, MeasuredRow, Report
from robust.report.limits import first_seeds, fitting
from robust.seeds import t_interval

STEPS = 8  # epochs or sizes of one quantity that the page shows; the CSV has all
PANELS = 12  # networks of one figure that are drawn side by side; the others are linked
DRAWN = 500_000  # characters of diagnostics' drawings on the page, which must stay under 3 MB
CLAIM_VERDICTS = ("holds", "partly", "fails", "untested")


def claim_counts(claims: Sequence[Any]) -> list[tuple[str, int]]:
    """How many claims have each verdict, those that occur."""
    counts = {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in CLAIM_VERDICTS}
    return [(verdict, count) for verdict, count in counts.items() if count]


def diagnostics(report: Report, drawings: Mapping[str, str]) -> list[dict[str, Any]]:
    """One entry a diagnostic: its table over groups, its figures with one panel a network, its grids of images."""
    figures = [figure for figure in report.figures if figure.model]
    names = dict.fromkeys(
        [*(row.diagnostic for row in report.measured), *(f.group.removeprefix("diagnostic-") for f in figures),
         *(picture.diagnostic for picture in report.pictures)]
    )  # fmt: skip
    left = DRAWN
    found = []
    for name in names:
        own = [figure for figure in figures if figure.group == f"diagnostic-{name}"]
        multiples, left = _multiples(own, report, drawings, left)
        found.append(
            {
                "name": name,
                "table": measured_table([row for row in report.measured if row.diagnostic == name]),
                "multiples": multiples,
                "pictures": [picture for picture in report.pictures if picture.diagnostic == name],
            }
        )
    return found


def _multiples(
    figures: Sequence[FigureRow], report: Report, drawings: Mapping[str, str], left: int
) -> tuple[list[dict[str, Any]], int]:
    """Figures of each kind: those drawn, first seeds first where there are many, and those linked."""
    order = {model.id: place for place, model in enumerate(report.models)}
    first = set(first_seeds(report))
    found = []
    for kind in dict.fromkeys(figure.kind for figure in figures):
        own = [figure for figure in figures if figure.kind == kind]
        wanted = own if len(own) <= PANELS else [figure for figure in own if figure.model in first][:PANELS]
        shown, left = fitting(wanted, drawings, left)
        shown.sort(key=lambda figure: order.get(figure.model, len(order)))
        found.append(
            {
                "title": own[0].title,
                "caption": own[0].caption,
                "paper": own[0].paper,
                "panels": shown,
                "linked": [figure for figure in own if figure not in shown],
            }
        )
    return found, left


def measured_table(rows: Sequence[MeasuredRow]) -> dict[str, Any]:
    """A line for each quantity, series and step, a column for each group: mean over seeds with its interval."""
    groups = list(dict.fromkeys(row.group for row in rows))
    cells: dict[tuple[str, str, Any, Any], dict[str, list[MeasuredRow]]] = {}
    for row in rows:
        key = (row.quantity, row.of or "", row.epoch, row.at)
        cells.setdefault(key, {}).setdefault(row.group, []).append(row)
    keys = _thinned(list(cells))
    lines = [
        {"quantity": quantity, "of": of, "epoch": epoch, "at": at,
         "cells": [_cell(cells[quantity, of, epoch, at].get(group, [])) for group in groups]}
        for quantity, of, epoch, at in keys
    ]  # fmt: skip
    columns = [name for name in ("of", "epoch", "at") if any(line[name] not in (None, "") for line in lines)]
    return {"groups": groups, "columns": columns, "lines": lines, "left_out": len(cells) - len(keys)}


def _thinned(keys: list[tuple[str, str, Any, Any]]) -> list[tuple[str, str, Any, Any]]:
    """Of each quantity and series at most so many steps, evenly spaced, the first and the last among them."""
    courses: dict[tuple[str, str], list[tuple[str, str, Any, Any]]] = {}
    for key in keys:
        courses.setdefault(key[:2], []).append(key)
    kept = []
    for own in courses.values():
        own = sorted(own, key=lambda key: tuple(-1.0 if value is None else float(value) for value in key[2:]))
        last = len(own) - 1
        kept += own if last < STEPS else [own[round(i * last / (STEPS - 1))] for i in range(STEPS)]
    return kept


def _cell(rows: Sequence[MeasuredRow]) -> dict[str, Any] | None:
    values = [row.value for row in rows if row.value is not None]
    if not values:
        return None
    found = t_interval(values)
    several = len(values) > 1
    low, high = (found.low, found.high) if several else (rows[0].low, rows[0].high)
    return {"mean": found.estimate, "low": low, "high": high, "seeds": len(values)}


def published_tables(report: Report) -> list[dict[str, Any]]:
    """The published numbers by table; a column of ours under the strong protocol where one is known."""
    names = dict.fromkeys(row.table for row in report.published)
    found = []
    for name in names:
        rows = [row for row in report.published if row.table == name]
        found.append({"name": name, "rows": rows, "strong": any(row.strong_evaluation for row in rows)})
    return found


def detection_matrix(report: Report) -> dict[str, Any] | None:
    """AUROC over seeds: a line for each score and group, a column for each set; None for a single number."""
    group_of = {model.id: model.group for model in report.models}
    sets = list(dict.fromkeys(row.ood for row in report.detection))
    cells: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for row in report.detection:
        if row.auroc is not None:
            key = (row.score, group_of.get(row.model, row.model))
            cells.setdefault(key, {}).setdefault(row.ood, []).append(row)
    if sum(len(own) for own in cells.values()) < 2:
        return None
    lines = [
        {"score": score, "group": group, "cells": [_metrics(own.get(ood, [])) for ood in sets]}
        for (score, group), own in sorted(cells.items())
    ]
    return {"sets": sets, "lines": lines}


def _metrics(rows: Sequence[Any]) -> dict[str, Any] | None:
    if not rows:
        return None
    found = t_interval([row.auroc for row in rows])
    false = [row.fpr95 for row in rows if row.fpr95 is not None]
    return {
        "auroc": found.estimate,
        "low": max(0.0, found.low) if len(rows) > 1 else None,
        "high": min(1.0, found.high) if len(rows) > 1 else None,
        "fpr95": sum(false) / len(false) if false else None,
    }


def checkpoint_table(report: Report) -> list[dict[str, Any]]:
    """Accuracy of the chosen and of the last weights of each group under each evaluation, means over seeds."""
    group_of = {model.id: model.group for model in report.models}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in report.checkpoints:
        plain = row.model_dump()
        found.setdefault((group_of.get(plain["model"], plain["model"]), plain["evaluation"]), []).append(plain)
    return [
        {"group": group, "evaluation": label, "seeds": len(rows), "epochs": sorted({row["best_epoch"] for row in rows}),
         "best": sum(row["best"] for row in rows) / len(rows), "last": sum(row["last"] for row in rows) / len(rows)}
        for (group, label), rows in found.items()
    ]  # fmt: skip
