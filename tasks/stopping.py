"""A polite stop: the first SIGINT or SIGTERM lets a long loop save its state; the second ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = threading.Event()
_saving: list[object] = []  # one entry for each loop that will save its state


def requested() -> bool:
    """Whether someone asked this process to stop; long loops look at it after every step."""
    return _asked.is_set()


@contextmanager
def saves_its_state() -> Iterator[None]:
    """Around a loop that asks `requested` after every step: a signal is left to the loop, which saves and raises."""
    loop = object()
    _saving.append(loop)
    try:
        yield
    finally:
        _saving.remove(loop)


@contextmanager
def on_signals() -> Iterator[None]:
    """Within the context a signal sets the flag, and raises KeyboardInterrupt unless a loop is there to save."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        again = _asked.is_set()
        _asked.set()
        if again or not _saving:
            raise KeyboardInterrupt

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
        _asked.clear()
