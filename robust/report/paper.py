"""Which published figures the report draws again, where they stand, and which are absent for what reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robust.report.document import FigureRow, PaperFigureRow, PictureRow, Row, tidy
from robust.report.founding import DRAWN_BY_SECTIONS, FIGURES, TABLED


def not_run_rows(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """`{figure, reason}` of what is absent: it is named, never drawn."""
    return [Row.model_validate(tidy(dict(row))) for row in rows]


def tagged(figures: Sequence[FigureRow], wanted: Sequence[str]) -> list[FigureRow]:
    """Figures of the report's own sections with the id of the first wanted published figure that they draw."""
    marks = [(id, DRAWN_BY_SECTIONS[id]) for id in wanted if id in DRAWN_BY_SECTIONS]
    return [
        figure
        if figure.paper or figure.model
        else figure.model_copy(update={"paper": ", ".join(id for id, start in marks if figure.id.startswith(start))})
        for figure in figures
    ]


def paper_figure_rows(
    wanted: Sequence[str],
    figures: Sequence[FigureRow],
    pictures: Sequence[PictureRow],
    tables: Mapping[str, Sequence[Any]],
    not_run: Sequence[Row],
) -> list[PaperFigureRow]:
    """Where each published figure stands: figures and pictures that carry its id, or a section's table, or the reason.

    Args:
        wanted: ids such as `M-1`, in the order of the table.
        figures, pictures: with their `paper` ids.
        tables: parts of the report by name, to know which are empty.
        not_run: `{figure, reason}`; a figure with a reason may still be drawn in part.
    """
    reasons: dict[str, list[str]] = {}
    for row in not_run:
        extra = row.model_extra or {}
        id = str(extra.get("figure", "")).split(" ")[0].rstrip(":,")
        reasons.setdefault(id, []).append(f"{extra.get('figure')}: {extra.get('reason', 'no reason given')}")
    found = []
    for id in wanted:
        own = [figure.id for figure in figures if id in figure.paper.split(", ")]
        grids = [picture.id for picture in pictures if id in picture.paper.split(", ")]
        section, part = TABLED.get(id, ("", ""))
        section = section if part and tables.get(part) else ""
        given = "; ".join(reasons.get(id, []))
        absent = "" if own or grids or section else "this study measured nothing that it could be drawn from"
        found.append(
            PaperFigureRow(
                id=id,
                title=FIGURES.get(id, id),
                figures=own,
                pictures=grids,
                section=section,
                reason=given or absent,
            )
        )
    return found
