"""Progress of long tasks, as log lines on the logger `robust.progress`; the command line decides how they look."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robust.progress import Listener, Progress

log = logging.getLogger("robust.progress")
EVERY = 5.0  # seconds between two lines of one task


def counter(what: str, total: int) -> Callable[[str], None]:
    """Called with the name of each piece of work that is done: a line every few seconds at most, and one at the end."""
    last, done = time.monotonic(), 0

    def tell(name: str) -> None:
        nonlocal last, done
        now, done = time.monotonic(), done + 1
        if now - last < EVERY and done < total:
            return
        last = now
        log.info("%s  %d/%d  %s", what, done, total, name)

    return tell


def reporter(label: str) -> Listener:
    """A listener that writes at most one line every few seconds, and one at the end."""
    last = time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < EVERY and progress.step < progress.total:
            return
        last = now
        terms = " ".join(f"{name} {value:.4g}" for name, value in list(progress.terms.items())[:4])
        log.info(
            "%s  %d/%d  %.0f s, %.0f images/s, %.0f s left  %s",
            label, progress.step, progress.total, progress.seconds, progress.images_per_second, progress.eta, terms,
        )  # fmt: skip

    return tell
