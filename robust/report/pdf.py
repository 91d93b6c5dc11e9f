"""PDF from the report's HTML by WeasyPrint (the extra `pdf`), without network and with the same bytes each time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

FILE_LINK = re.compile(r' ?<a href="(?!#)[^"]*">[^<]*</a>')  # a PDF travels without the files beside it
BUTTON = re.compile(r"</?button[^>]*>")  # nothing sorts on paper


class PdfError(RuntimeError):
    """The PDF cannot be made here; the message says what to install."""


def pdf(html: str) -> bytes:
    """The page as PDF.

    Raises:
        PdfError: if WeasyPrint or the Pango library that it needs is not installed.
    """
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except (ImportError, OSError) as error:
        remedy = "install it with: pip install 'robust-flows[pdf]' (and the system library pango)"
        raise PdfError(f"a PDF report needs WeasyPrint; {remedy}") from error
    with _fixed_date():
        fetcher = URLFetcher(allowed_protocols=("data",), fail_on_errors=True)
        content: bytes = HTML(string=BUTTON.sub("", FILE_LINK.sub("", html)), url_fetcher=fetcher).write_pdf()
    return content


@contextmanager
def _fixed_date() -> Iterator[None]:
    """Subset fonts carry the time at which they were made, unless the environment fixes it."""
    before = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ["SOURCE_DATE_EPOCH"] = before or "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]
