"""A session: what a command does around its flow. The home, its Prefect server, progress and signals."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks import stopping
from tasks.home import Home, activate
from tasks.server import begin


@contextmanager
def session(home: Path) -> Iterator[Home]:
    """The home, ready for flows. What imports Prefect or MLflow is imported inside the block."""
    place = activate(Home(home))
    if not os.environ.get("ROBUST_DEBUG"):  # the command line says once what went wrong; the server keeps the log
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    with stopping.on_signals(), begin(place):
        yield place
