"""What fits on a page of less than 3 MB: budgets for figures and images, and long tables cut.

Nothing is lost by it: what the page leaves out stands in the report's folder, and the page says so and links it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robust.report.curves import slug
from robust.report.document import ExampleRow, FigureRow, FlipRow, PictureRow, Report, Row
from robust.report.flips import MEAN

ROWS = 250  # of one table; its CSV has all
EVIDENCE = 500_000  # characters of drawings behind the verdicts
EXAMPLES = 400_000  # characters of attacked images
PICTURES = 450_000  # characters of the diagnostics' grids of images


def fitting(figures: Sequence[FigureRow], drawings: Mapping[str, str], budget: int) -> tuple[list[FigureRow], int]:
    """The figures that are drawn within a budget of characters, in order, and what is left of it."""
    kept = []
    for figure in figures:
        if len(drawings[figure.id]) <= budget:
            budget -= len(drawings[figure.id])
            kept.append(figure)
    return kept, budget


def evidence(report: Report, drawings: Mapping[str, str]) -> dict[str, list[FigureRow]]:
    """The figures behind the verdicts: those drawn, and those linked."""
    own = [figure for figure in report.figures if figure.group == "evidence"]
    drawn, _ = fitting(own, drawings, EVIDENCE)
    return {"drawn": drawn, "linked": [figure for figure in own if figure not in drawn]}


def checks(report: Report) -> dict[str, Any]:
    """The validity checks: all rows where they are few; else those that failed, and how each check went over all."""
    rows = report.evidence
    if len(rows) <= ROWS:
        return {"rows": rows, "tally": [], "failed": 0}
    failed = [row for row in rows if row.model_dump().get("passed") is False]
    return {"rows": failed[:ROWS], "tally": _tally(rows), "failed": len(failed)}


def _tally(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line a check: on how many networks and evaluations it was made, how many passed, and its extreme values."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        plain = row.model_dump()
        found.setdefault(str(plain.get("check", "")), []).append(plain)
    lines = []
    for check, own in found.items():
        values = [row["value"] for row in own if isinstance(row.get("value"), int | float)]
        lines.append(
            {
                "check": check,
                "made": len(own),
                "passed": sum(row.get("passed") is not False for row in own),
                "networks": len({row.get("model") for row in own}),
                "lowest": min(values, default=None),
                "highest": max(values, default=None),
            }
        )
    return sorted(lines, key=lambda line: line["passed"] / line["made"])


def network_rows(report: Report) -> list[Any]:
    """Rows of the table of networks: all; of very many the clean and worst cases and whatever is not trusted."""
    told = frames(report)
    rows = [row for row in (*report.evaluations, *report.worst_case) if row.label not in told]
    if len(rows) <= 2 * ROWS:
        return rows
    telling = [row for row in rows if row.name == "clean" or row.members or row.verdict != "trusted"]
    return telling[: 2 * ROWS]


def group_rows(report: Report) -> list[Any]:
    """Rows of the table of means over seeds, chosen in the same way."""
    told = frames(report)
    rows = [row for row in report.groups if row.label not in told]
    if len(rows) <= ROWS:
        return rows
    clean = {row.label for row in report.evaluations if row.name == "clean"}
    worst = {row.label for row in report.worst_case}
    return [row for row in rows if row.label in clean | worst or row.verdict != "trusted"][:ROWS]


def frames(report: Report) -> set[str]:
    """Labels of single frames of sequences, whose flips have a section of their own."""
    return {row.label for row in report.evaluations if row.name == "sequence-frame"} if report.flips else set()


def flips(report: Report) -> list[FlipRow]:
    """Rows of the table of flips: all, or of many groups the means over sequences."""
    rows = report.flips
    return rows if len(rows) <= ROWS else [row for row in rows if row.sequence == MEAN] or rows


def strips(report: Report) -> dict[str, Any]:
    """Examples of one network under one evaluation as strips of pictures; of many, those of each group's first seed.

    Where these too are more than the page can hold, each strip keeps as many, fragile and robust ones by turns. Every
    example stands in the strip's image file.
    """
    found: dict[tuple[str, str], list[ExampleRow]] = {}
    for example in report.examples:
        found.setdefault((example.model, example.evaluation), []).append(example)
    wanted = found
    if _characters(found.values()) > EXAMPLES:
        first = set(first_seeds(report))
        wanted = {key: own for key, own in found.items() if key[0] in first} or found
    length = max(map(len, wanted.values()), default=0)
    while length > 1 and _characters(_ends(own, length) for own in wanted.values()) > EXAMPLES:
        length -= 1
    shown: list[dict[str, Any]] = []
    left = EXAMPLES
    for (model, evaluation), own in wanted.items():
        kept = _ends(own, length)
        if (cost := _characters([kept])) <= left:
            left -= cost
            shown.append({"model": model, "evaluation": evaluation, "examples": kept, "all": len(own),
                          "magnified": _magnified(kept), "file": strip_file(model, evaluation)})  # fmt: skip
    there = {(strip["model"], strip["evaluation"]) for strip in shown}
    linked = [{"model": m, "evaluation": e, "file": strip_file(m, e)} for m, e in found if (m, e) not in there]
    return {"shown": shown, "linked": linked, "cut": any(len(s["examples"]) < s["all"] for s in shown)}


def strip_file(model: str, evaluation: str) -> str:
    """The image that holds all examples of a network under an evaluation."""
    return f"{slug('examples', model, evaluation)}.png"


def first_seeds(report: Report) -> list[str]:
    """The first network of each group."""
    found: dict[str, str] = {}
    for model in report.models:
        found.setdefault(model.group, model.id)
    return list(found.values())


def _ends(examples: Sequence[ExampleRow], count: int) -> list[ExampleRow]:
    """So many from both ends: the first are fragile, the last robust."""
    head = count - count // 2
    return list(examples) if count >= len(examples) else [*examples[:head], *examples[len(examples) - count // 2 :]]


def _characters(strips: Any) -> int:
    return sum(len(e.clean) + len(e.perturbation) + len(e.adversarial) for own in strips for e in own)


def _magnified(examples: Sequence[ExampleRow]) -> str:
    times = sorted({example.magnified for example in examples})
    return f"{times[0]:g}" if len(times) == 1 else f"{times[0]:g} to {times[-1]:g}"


def pictures(report: Report) -> tuple[list[PictureRow], list[PictureRow]]:
    """The diagnostics' grids that stand on the page, and those that are linked."""
    shown, left = [], PICTURES
    for picture in report.pictures:
        if len(picture.image) <= left:
            left -= len(picture.image)
            shown.append(picture)
    return shown, [picture for picture in report.pictures if picture not in shown]


def picture_file(picture: PictureRow) -> str:
    """The image file of a grid."""
    return f"picture-{picture.id}.png"
