"""The report: from ledgers to one frozen report.json, and from that to HTML, PDF, LaTeX, CSV and model cards.

`build` turns tables into data, `render` turns the data into files; neither needs a model.
"""

from robust.report.build import build
from robust.report.cells import ReportError
from robust.report.examples import worth_showing
from robust.report.render import render

__all__ = ["ReportError", "build", "render", "worth_showing"]
