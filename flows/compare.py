"""The flow `compare`: two reports side by side, from their ledgers, without a model."""

from __future__ import annotations

from prefect import flow

from tasks.compare import compare_reports
from tasks.home import Home


@flow(name="compare")
def compare(first: str, second: str) -> str:
    """Compare two studies of the home, or two report.json; returns the path of compare.html."""
    return str(compare_reports(first, second, Home.current().create())[0])
