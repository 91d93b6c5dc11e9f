"""The comparison of two reports: what differs in settings, code, data and environment, and which samples flipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from robust.differences import Change, changes
from robust.pairing import Flips, Judged, flips, left_out
from robust.report import html
from robust.report.terminal import fitted

SAMPLES_SHOWN = 12
UNRECORDED = "not recorded"  # modules of a report that lies outside the home that ran it
UNRECORDED_WHY = "a report away from its home records no code: compare the environment below"
MOST = 16  # changed fields of each part that the terminal shows; the page has all


def compare(first: Judged, second: Judged, code: tuple[Mapping[str, str], Mapping[str, str]]) -> dict[str, Any]:
    """The content of compare.json, schema 1.

    Args:
        first, second: each report with its ledger.
        code: digests of the modules behind each, by module; empty where they were not recorded.

    Raises:
        NotComparable: if the two share no sample under any evaluation.
    """
    reports = first.report, second.report
    found = flips(first, second)
    return {
        "schema": 1,
        "first": _side(first.report),
        "second": _side(second.report),
        "settings": _changed(reports, "settings", ("name", "size", "report")),
        "code": _code(code),
        "data": _changed(reports, "dataset", ("classes",)),
        "environment": _changed(reports, "environment"),
        "weights": _weights(reports),
        "flips": [entry.row() for entry in found],
        "left_out": left_out(first, second),
        "sentences": [sentence(entry) for entry in found if entry.larger_than_chance],
    }


def sentence(entry: Flips) -> str:
    """One finding in words, in percentage points."""
    models = entry.first if entry.first == entry.second else f"{entry.second} instead of {entry.first}"
    verb = "rose" if entry.gap.effect > 0 else "fell"
    return (
        f"{models}: accuracy under {entry.label} {verb} by {abs(entry.gap.effect) * 100:.1f} points "
        f"({len(entry.lost)} samples lost, {len(entry.won)} won), more than chance explains."
    )


def comparison_table(document: Mapping[str, Any]) -> str:
    """The comparison for a terminal of 80 columns."""
    lines = []
    for part in ("settings", "code", "data", "environment", "weights"):
        rows = document[part]
        lines.append(f"{part}: {'the same' if not rows else ''}".rstrip())
        lines += [
            f"  {_end(row['path']):<34} {fitted(row['first'], 18):>18} -> {fitted(row['second'], 20)}"
            for row in rows[:MOST]
        ]
        lines += [f"  {UNRECORDED_WHY}"] if any(UNRECORDED in row.values() for row in rows) else []
        lines += [f"  and {len(rows) - MOST} more, in compare.json"] if len(rows) > MOST else []
    lines += [
        "",
        f"{'network':<20} {'evaluation':<19} {'A %':>5} {'B %':>5} {'B-A':>6} {'lost':>5} {'won':>4} {'p':>6}",
    ]
    for row in document["flips"]:
        name = row["first"] if row["first"] == row["second"] else f"{row['first']}|{row['second']}"
        mark = " *" if row["larger_than_chance"] else ""
        lines.append(
            f"{fitted(name, 20):<20} {fitted(row['label'], 19):<19} {100 * row['accuracy_first']:>5.1f} "
            f"{100 * row['accuracy_second']:>5.1f} {100 * row['effect']:>+6.1f} {len(row['lost']):>5} "
            f"{len(row['won']):>4} {row['p_holm']:>6.3f}{mark}"
        )
    tail = [f"not in both: {', '.join(document['left_out'])}"[:80]] if document["left_out"] else []
    return "\n".join([*lines, "p is McNemar's, corrected for all rows (Holm); * larger than chance", *tail])


def comparison_page(document: Mapping[str, Any]) -> str:
    """compare.html: one self-contained page, names escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(html.TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"percent": html.percent, "points": html.points, "p_value": html.p_value}
    css, script = ((html.TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    parts = [(part, document[part]) for part in ("settings", "code", "data", "environment", "weights")]
    return environment.get_template("compare.html.j2").render(
        document=document,
        parts=parts,
        shown=SAMPLES_SHOWN,
        unrecorded=(UNRECORDED, UNRECORDED_WHY),
        css=Markup(css),
        script=Markup(script),
    )


def _end(path: str) -> str:
    """A path cut at its front, for its end says most."""
    return path if len(path) <= 34 else "…" + path[-33:]


def _side(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "study": report["study"],
        "size": report["size"],
        "title": report["title"],
        "dataset": {key: report["dataset"][key] for key in ("name", "digest", "samples")},
        "models": [{"id": row["id"], "sha256": row["sha256"]} for row in report["models"]],
    }


def _changed(
    reports: tuple[Mapping[str, Any], Mapping[str, Any]], part: str, without: tuple[str, ...] = ()
) -> list[dict[str, str]]:
    first, second = ({key: v for key, v in report[part].items() if key not in without} for report in reports)
    return [_row(change) for change in changes(first, second)]


def _code(code: tuple[Mapping[str, str], Mapping[str, str]]) -> list[dict[str, str]]:
    """Changed modules; where one side recorded none, that is said instead of guessed."""
    if all(code):
        return [_row(change) for change in changes(*code)]
    said = ["recorded" if side else UNRECORDED for side in code]
    return [] if said[0] == said[1] == "recorded" else [{"path": "modules", "first": said[0], "second": said[1]}]


def _weights(reports: tuple[Mapping[str, Any], Mapping[str, Any]]) -> list[dict[str, str]]:
    first, second = ({row["id"]: row["sha256"] for row in report["models"]} for report in reports)
    return [_row(change) for change in changes(first, second)]


def _row(change: Change) -> dict[str, str]:
    return {"path": change.path, "first": change.before, "second": change.after}
