"""A polite stop: the first SIGINT or SIGTERM lets work save its state and end; a second, or too long a wait, ends all.

A process that leaves in the middle harms nothing: files are moved into place whole, locks are the operating system's,
and servers, ranks and workers end with the process that started them.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from torch import nn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_CODE = 130
LAST_WORDS = "interrupted; the same command goes on from where it stopped"
PATIENCE_SECONDS = 8.0  # from the request to the end of the process, whatever still computes
ECHO_SECONDS = 0.5  # within them a second signal is the first one, sent to the group and passed on by a wrapper

_asked = threading.Event()
_saving: list[object] = []  # one entry for each loop that will save its state


def ask() -> None:
    """Ask this process to stop: whatever looks at `requested` ends soon."""
    _asked.set()


def requested() -> bool:
    """Whether someone asked this process to stop; long loops look at it after every step."""
    return _asked.is_set()


@contextmanager
def asked() -> Iterator[None]:
    """Within the context this process is asked to stop, and after it no more than before."""
    before = _asked.is_set()
    _asked.set()
    try:
        yield
    finally:
        if not before:
            _asked.clear()


@contextmanager
def saves_its_state() -> Iterator[None]:
    """Around a loop that asks `requested` after every step: a signal is left to the loop, which saves and raises."""
    loop = object()
    _saving.append(loop)
    try:
        yield
    finally:
        _saving.remove(loop)


def stops_between_passes(network: nn.Module) -> None:
    """Make the network's forward pass raise Interrupted once this process was asked to stop: no attack outlasts it."""
    network.register_forward_pre_hook(_stop_here)


def _stop_here(*_: object) -> None:
    if _asked.is_set():
        from robust.trained import Interrupted

        raise Interrupted("stopped between two forward passes; what was finished before is kept")


@contextmanager
def on_signals() -> Iterator[None]:
    """Within the context a signal asks to stop, and raises KeyboardInterrupt unless a loop is there to save.

    What an interrupted library makes of it is a KeyboardInterrupt again on the way out.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    heard: list[float] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(time.monotonic())
        if heard[-1] - heard[0] > ECHO_SECONDS:
            leave()
        ask()
        if len(heard) == 1 and not _saving:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, hear) for number in SIGNALS}
    over = threading.Event()
    threading.Thread(target=_lose_patience, args=(over,), daemon=True).start()
    try:
        yield
    except Exception as error:
        if heard:
            raise KeyboardInterrupt from error
        raise
    finally:
        over.set()
        for number, before in previous.items():
            signal.signal(number, before)
        _asked.clear()


def _lose_patience(over: threading.Event) -> None:
    while not over.wait(0.2):
        if _asked.is_set():
            if not over.wait(PATIENCE_SECONDS):
                leave()
            return


def leave() -> NoReturn:
    """Say that the run can go on, and end this process, whatever its threads do."""
    with suppress(OSError):  # not by way of sys.stderr, which the signal may have caught in the middle of a line
        os.write(2, f"{LAST_WORDS}\n".encode())
    # what multiprocessing does at every other exit; without it, its tracker warns of semaphores that a pool left behind
    multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]
    os._exit(EXIT_CODE)


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started within, and threads and what they start later, never see the terminal's SIGINT."""
    resource_tracker.ensure_running()  # which unblocks the signal in the thread that starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker() -> None:
    """The first thing that a worker process does: from now on SIGTERM asks it to stop, and it ends with its parent."""
    signal.signal(signal.SIGTERM, lambda number, frame: ask())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(EXIT_CODE)
