"""The report as one self-contained HTML page: no network, no outside font or script, names escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from robust.report import limits as room
from robust.report import views
from robust.report.curves import slug
from robust.report.document import FigureRow, Report
from robust.report.figures import themed

TEMPLATES = Path(__file__).parent / "templates"
NARROW_SPACE = "\u202f"
FEW_ROWS = 24  # a longer table of comparisons shows clean and worst-case rows only; the CSV has all
WEAKEST = 5  # classes shown of each group


def page(report: Report, drawings: Mapping[str, str], dark: bool = True) -> str:
    """The page.

    Args:
        report: the document.
        drawings: SVG of each figure by id.
        dark: whether figures follow the reader's colour scheme; paper wants plain colours.
    """
    shown = {id: themed(svg) if dark else svg for id, svg in drawings.items()}
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            svg={id: Markup(svg) for id, svg in shown.items()},
            css=Markup(_source("report.css")),
            script=Markup(_source("report.js")),
            figures=_by_group(report.figures),
            reliability=any(figure.diagonal for figure in report.figures),
            rows=room.network_rows(report),
            group_rows=room.group_rows(report),
            most=room.ROWS,
            evidence=room.evidence(report, drawings),
            checks=room.checks(report),
            flips=room.flips(report),
            any_reasons=any(row.reasons for row in report.evaluations),
            any_distance=any(row.median_distance is not None for row in report.evaluations),
            several_seeds=any(row.seeds > 1 for row in report.groups),
            differences=_differences(report),
            headlines=_headlines(report),
            classes=_weakest(report),
            strips=room.strips(report),
            pictures=room.pictures(report),
            costs=_costs(report),
            doubts=_doubts(report),
            class_name=_class_names(report.dataset.classes),
            claim_counts=views.claim_counts(report.claims),
            diagnostics=views.diagnostics(report, drawings),
            published_tables=views.published_tables(report),
            detection_matrix=views.detection_matrix(report),
            checkpoints=views.checkpoint_table(report),
            paper_ids=[row.id for row in report.paper_figures],
        )
    )


def joined_page(report: Any, drawings: Mapping[str, str], counts: Any) -> str:
    """The page of a joined report; its questions' claims stand under them."""
    return (
        environment()
        .get_template("joined.html.j2")
        .render(
            report=report,
            svg={id: Markup(themed(svg)) for id, svg in drawings.items()},
            css=Markup(_source("report.css")),
            script=Markup(_source("report.js")),
            claim_counts=counts,
        )
    )


def environment() -> jinja2.Environment:
    """The templates with the filters that they use; names are escaped."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters |= {"percent": percent, "number": number, "p_value": p_value, "count": count, "points": points}
    found.filters |= {
        "threat": threat,
        "slug": slug,
        "effect": effect,
        "limits": limits,
        "short": short,
        "columns": columns,
        "picture_file": room.picture_file,
    }
    found.filters |= {"numeric_column": numeric_column, "as_published": as_published, "ours": ours}
    found.filters |= {"ours_between": ours_between, "percent_within": percent_within, "number_within": number_within}
    found.globals |= {"numeric": lambda names: [(n, 1) for n in names]}
    found.globals |= {"aligned": lambda names: [(n, int(n != "of")) for n in names]}
    return found


def percent(value: float | None) -> str:
    """A fraction as a percentage: 81.2 %."""
    return "–" if value is None else f"{value * 100:.1f}{NARROW_SPACE}%"


def points(value: float | None) -> str:
    """A difference of fractions in percentage points, with its sign: +3.1."""
    return "–" if value is None else f"{value * 100:+.1f}".replace("-", "−")


def number(value: Any) -> str:
    """A measured number with four significant digits; text as it is; a dash for what is not known."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    return count(value) if isinstance(value, int) else f"{value:.4g}".replace("-", "−")


def short(value: float) -> str:
    """A limit of an interval, with three significant digits."""
    return f"{value:.3g}".replace("-", "−")


def threat(row: Any) -> str:
    """Norm and size of a row: `linf 8/255`, `l2, any size`; empty for what is no attack."""
    return "" if row.norm is None else f"{row.norm} {row.eps}" if row.eps else f"{row.norm}, any size"


def count(value: float) -> str:
    """A whole number with narrow spaces between thousands."""
    return f"{round(value):,}".replace(",", NARROW_SPACE).replace("-", "−")


def p_value(value: float) -> str:
    """A p-value as papers print it."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def effect(row: Any) -> str:
    """The effect of a claim with its unit: `+3.1 points`, `1.5 x`, `0.93 AUROC`."""
    if isinstance(row.effect, str):
        return row.effect
    shown = f"{row.effect:+.1f}".replace("-", "−") if row.unit == "points" else number(row.effect)
    return f"{shown}{NARROW_SPACE}{row.unit}" if row.unit else shown


def limits(row: Any) -> str:
    """The interval of a claim's effect in the effect's own digits; empty where there is none."""
    if row.low is None or row.high is None:
        return ""
    low, high = (f"{v:+.1f}".replace("-", "−") if row.unit == "points" else number(v) for v in (row.low, row.high))
    return f"({low} to {high})"


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of plain rows, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def numeric_column(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether a column of plain rows holds numbers."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


SHARES = ("accuracy", "error")  # quantities in [0,1] that papers print as percentages


def as_published(row: Any) -> str:
    """A published number as its source prints it; a share in [0,1] as a percentage like ours."""
    value = row.published
    share = row.quantity in SHARES and isinstance(value, float) and 0 <= value <= 1
    return percent(value) if share else number(value)


def ours(row: Any, value: float | None) -> str:
    """A number of ours in the unit of its published counterpart: shares as percentages."""
    return percent(value) if row.quantity in SHARES else number(value)


def ours_between(row: Any, low: float | None, high: float | None) -> str:
    """The interval of a number of ours; a dash where there is none."""
    return "–" if low is None or high is None else f"{ours(row, low)} to {ours(row, high)}"


def percent_within(row: Any, name: str) -> str:
    """A fraction of a row with its interval, as percentages: 0.5 % [0.3, 0.9]."""
    return _within(row, name, 100, 1, f"{NARROW_SPACE}%")


def number_within(row: Any, name: str) -> str:
    """A figure of a row with its interval: 0.013 [0.011, 0.016]."""
    return _within(row, name, 1, 3, "")


def _within(row: Any, name: str, scale: float, digits: int, unit: str) -> str:
    value, low, high = (getattr(row, key, None) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return "–"
    shown = [f"{scale * number:.{digits}f}" for number in (value, low, high) if number is not None]
    return f"{shown[0]}{unit}" + (f" [{shown[1]}, {shown[2]}]" if len(shown) == 3 else "")


def _by_group(figures: Sequence[FigureRow]) -> dict[str, list[FigureRow]]:
    found: dict[str, list[FigureRow]] = {}
    for figure in figures:
        found.setdefault(figure.group, []).append(figure)
    return found


def _differences(report: Report) -> list[Any]:
    if len(report.differences) <= FEW_ROWS:
        return list(report.differences)
    clean = {row.label for row in report.evaluations if row.name == "clean"}
    worst = {row.label for row in report.worst_case}
    return [row for row in report.differences if row.label in clean | worst]


def _costs(report: Report) -> list[dict[str, Any]]:
    """Passes an image of each group under each evaluation, over all its seeds."""
    group_of = {model.id: model.group for model in report.models}
    frames = room.frames(report)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in report.evaluations:
        key = (group_of.get(row.model, row.model), "frames of sequences" if row.label in frames else row.label)
        total = found.setdefault(
            key, {"group": key[0], "label": key[1], "n": 0, "forward": 0, "backward": 0, "queries": 0}
        )
        for column in ("n", "forward", "backward", "queries"):
            total[column] += getattr(row, column)
    return [row for row in found.values() if row["forward"] or row["backward"] or row["queries"]]


def _doubts(report: Report) -> list[dict[str, Any]]:
    """Every reason not to trust a number, with the numbers that it concerns."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in (*report.evaluations, *report.worst_case):
        if row.verdict == "trusted" or (row.members and any(r.split(": ")[0] in row.members for r in row.reasons)):
            continue
        for reason in row.reasons:
            found.setdefault((row.verdict, reason), []).append(f"{row.model} under {row.label}")
    return [
        {"verdict": verdict, "reason": reason, "where": where[:WEAKEST], "more": max(0, len(where) - WEAKEST)}
        for (verdict, reason), where in found.items()
    ]


def _headlines(report: Report) -> list[str]:
    """The labels whose differences are told in words: clean, and the worst case that the summary speaks of."""
    clean = [row.label for row in report.evaluations if row.name == "clean"]
    told = [str(sentence["label"]) for sentence in report.summary if sentence.get("label")]
    return list(dict.fromkeys([*clean, *told]))


def _weakest(report: Report) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in report.classes:
        plain = row.model_dump()
        found.setdefault(plain["group"], []).append(plain)
    return [row for rows in found.values() for row in rows[:WEAKEST]]


def _class_names(classes: Sequence[str]) -> Any:
    def name(k: int) -> str:
        return classes[k] if 0 <= k < len(classes) else str(k)

    return name


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
