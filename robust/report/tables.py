"""The report's tables as CSV and LaTeX: complete, in the order of report.json, with names escaped."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from robust.report.document import FigureRow, Report

TABLES = (
    "evaluations", "worst_case", "groups", "differences", "calibration", "detection", "certificates", "claims",
    "evidence", "classes", "fragile", "sturdy", "measured", "published", "paper_figures", "not_run", "checkpoints",
    "shift", "flips", "examples",
)  # fmt: skip
LATEX = (
    "evaluations", "worst_case", "groups", "differences", "calibration", "detection", "certificates", "claims",
    "published",
)  # fmt: skip
LEFT_OUT = {
    "name", "reasons", "members", "sentence", "forward", "backward", "queries", "seeds_error", "samples_error",
    "reason", "quantity",
}  # fmt: skip
NESTED = {"rows"}  # tables within a row stand in report.json alone
UNKNOWN = "–"
IMAGES = {"clean", "perturbation", "adversarial"}  # of the examples; they stand in image files


def figure_csv(figure: FigureRow) -> str:
    """The numbers behind a figure, one row a point: series, x, y, and where known low, high, count, category."""
    columns = ["series", figure.x_label or "x", figure.y_label or "y"]
    ticks = figure.x_ticks
    further = [name for name in ("low", "high", "count") if any(getattr(s, name) for s in figure.series)]
    rows: list[list[Any]] = [[*columns, *further, *(["category"] if ticks else [])]]
    for series in figure.series:
        extras = [getattr(series, name) or [""] * len(series.x) for name in further]
        names = [[ticks[round(x)] if 0 <= round(x) < len(ticks) else "" for x in series.x]] if ticks else []
        rows += [[series.label, *point] for point in zip(series.x, series.y, *extras, *names)]
    return _csv(rows)


def table_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of a table; lists are joined by `; `."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in NESTED))
    return _csv([columns, *[[_cell(row.get(column)) for column in columns] for row in rows]])


def csv_files(report: Report) -> dict[str, str]:
    """Name and text of every CSV: one for each figure, one for each table that is not empty."""
    plain = report.model_dump(mode="json", include=set(TABLES), exclude={"examples": {"__all__": IMAGES}})
    files = {f"{name.replace('_', '-')}.csv": table_csv(plain[name]) for name in TABLES if plain[name]}
    return files | {figure.csv: figure_csv(figure) for figure in report.figures}


def latex_files(report: Report) -> dict[str, str]:
    """Name and text of every LaTeX table, for `\\input` in a paper that loads booktabs."""
    plain = report.model_dump(mode="json", include=set(LATEX))
    return {f"{name.replace('_', '-')}.tex": latex(plain[name]) for name in LATEX if plain[name]}


def latex(rows: Sequence[Mapping[str, Any]]) -> str:
    """A booktabs table; names are escaped, `x_low` and `x_high` stand in brackets beside `x`."""
    frame = pd.DataFrame(list(rows))
    frame = frame[[c for c in frame.columns if c not in LEFT_OUT | NESTED and not frame[c].isna().all()]]
    frame = _bracketed(frame.map(_text))
    frame.columns = [str(c).replace("_", " ") for c in frame.columns]
    style = frame.style.format(escape="latex").format_index(escape="latex", axis=1).hide(axis="index")
    text: str = style.to_latex(hrules=True, column_format="l" * len(frame.columns))
    return text


def _bracketed(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns `x, x_low, x_high` of text as one, `0.0047 [0.0030, 0.0065]`; unknown limits are not shown."""
    for name in [column for column in frame.columns if {f"{column}_low", f"{column}_high"} <= set(frame.columns)]:
        low, high = frame.pop(f"{name}_low"), frame.pop(f"{name}_high")
        known = (low != UNKNOWN) & (high != UNKNOWN)
        frame[name] = frame[name].where(~known, frame[name] + " [" + low + ", " + high + "]")
    return frame


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return UNKNOWN
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}"
    return str(_cell(value))


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return "; ".join(str(item) for item in value)
    return "" if value is None else value


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    target = io.StringIO()
    csv.writer(target, lineterminator="\n").writerows(rows)
    return target.getvalue()
