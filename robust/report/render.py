"""Render a frozen report.json into its folder: HTML, figures, CSV, LaTeX, model cards and, when asked, PDF."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robust.report.card import cards
from robust.report.document import Report, plain
from robust.report.figures import draw
from robust.report.html import page
from robust.report.images import image_files
from robust.report.pdf import pdf as to_pdf
from robust.report.tables import csv_files, latex_files


def render(report: Mapping[str, Any], folder: str | Path, *, pdf: bool = False) -> Path:
    """Write every file of the report; each appears whole or not at all.

    Args:
        report: the content of report.json, from `build` or read back from disk.
        folder: made if missing; files of the same names are replaced.
        pdf: also write report.pdf, which needs the extra `pdf`.

    Returns:
        The path of report.html.

    Raises:
        pydantic.ValidationError: if the document is not schema 1.
        PdfError: if a PDF is asked for and WeasyPrint is missing.
    """
    document = Report.model_validate(report)
    drawings = {figure.id: draw(figure) for figure in document.figures}
    files: dict[str, str | bytes] = {figure.file: drawings[figure.id] for figure in document.figures}
    files |= csv_files(document) | latex_files(document) | cards(document)
    files |= image_files(document)
    if pdf:
        files["report.pdf"] = to_pdf(page(document, drawings, dark=False))
    files["report.html"] = page(document, drawings)
    return write_files(files, plain(document), Path(folder))


def write_files(files: Mapping[str, str | bytes], document: Mapping[str, Any], folder: Path) -> Path:
    """Write files and report.json, each under a temporary name and moved; returns the path of report.html.

    Figures of the report that lay there before go, if the new one no longer has them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = _figures(folder)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    for name, content in {**files, "report.json": text}.items():
        _write(folder / name, content if isinstance(content, bytes) else content.encode("utf-8"))
    for name in old - set(files):
        (folder / name).unlink(missing_ok=True)
    return folder / "report.html"


def _figures(folder: Path) -> set[str]:
    """Drawings and CSVs of the figures of the report in a folder; none where there is no report."""
    try:
        figures = json.loads((folder / "report.json").read_text(encoding="utf-8"))["figures"]
        names = {str(figure[key]) for figure in figures for key in ("file", "csv")}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {name for name in names if Path(name).name == name and Path(name).suffix in (".svg", ".csv")}


def _write(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
