"""Compare: two reports found by name or path, and the comparison written under the home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robust.pairing import Judged
from robust.report.comparison import compare, comparison_page
from tasks.home import Home
from tasks.reported import code_of, find_report
from tasks.store import moved_into


def compare_reports(first: str, second: str, home: Home) -> tuple[Path, dict[str, Any]]:
    """Write compare.html and compare.json; returns the path of the page and the document.

    Raises:
        UnknownName: if there is no such report.
        NotComparable: if the two share no sample.
    """
    found = [find_report(home, text) for text in (first, second)]
    judged = [Judged.of(each.report, each.rows()) for each in found]
    document = compare(judged[0], judged[1], (code_of(found[0]), code_of(found[1])))
    folder = home.reports / f"{found[0].name}-vs-{found[1].name}"
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    for name, content in (("compare.json", text), ("compare.html", comparison_page(document))):
        with moved_into(folder / name) as stream:
            stream.write(content.encode("utf-8"))
    return folder / "compare.html", document
