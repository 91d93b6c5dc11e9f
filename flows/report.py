"""`robust report`: draw a report again from its frozen report.json, in seconds and without a model."""

from __future__ import annotations

import json
import os
from pathlib import Path

from flows.outcomes import InputError
from tasks.home import Home


def rebuild(study: str, size: str, home: Path) -> Path:
    """The report of a study file, of a study by name, or of a report folder; returns the path of report.html.

    Raises:
        InputError: if there is no report.json, or it cannot be read.
    """
    source = _report_json(study, size, Home(home))
    try:
        report = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{source}: cannot be read as a report ({error}); run the study again") from None
    from robust.report import render

    return render(report, source.parent, pdf=source.with_name("report.pdf").exists())


def _report_json(study: str, size: str, home: Home) -> Path:
    path = Path(study)
    if os.path.isfile(path / "report.json"):  # unlike Path's, this says no to names that no file can have
        return path / "report.json"
    name = study
    if path.suffix in (".yaml", ".yml"):
        from robust.study_file import load

        name = load(path, size).title  # type: ignore[arg-type]
    elif size != "cpu":
        name = f"{study}-{size}"
    found = home.reports / name / "report.json"
    if not os.path.isfile(found) or found.parent.parent != home.reports:
        there = sorted(p.parent.name for p in home.reports.glob("*/report.json")) if home.reports.is_dir() else []
        raise InputError(f"no report of {study[:80]!r} under {home.reports}; there are {', '.join(there) or 'none'}")
    return found
