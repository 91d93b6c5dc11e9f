"""A polite stop: the first SIGINT or SIGTERM lets work save its state and end; a second, or too long a wait, ends all.

A process that leaves in the middle harms nothing: files are moved into place whole, locks are the operating system's,
and servers, ranks and workers end with the process that started them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
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
PATIENCE_SECONDS = 6.0  # from the request to the end of the process, whatever still computes
SILENCE = "ignore::UserWarning:multiprocessing.resource_tracker"
ECHO_SECONDS = 0.5  # within them a second signal is the first one, sent to the group and passed on by a wrapper

_asked: list[bool] = []  # not empty once somebody asked; no Event, whose lock a second signal would meet in its handler
_saving: list[object] = []  # one entry for each loop that will save its state


def ask() -> None:
    """Ask this process to stop: whatever looks at `requested` ends soon."""
    _asked.append(True)


def requested() -> bool:
    """Whether someone asked this process to stop; long loops look at it after every step."""
    return bool(_asked)


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
    if _asked:
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
    try:
        with _patience():
            yield
    except Exception as error:
        if _asked:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
        _asked.clear()


@contextmanager
def _patience() -> Iterator[None]:
    """Leave some time after the first signal, also where a library has set a handler of its own, as Prefect does.

    The wakeup file gets the number of each signal, whoever handles it and however busy the main thread is.
    """
    ours, theirs = socket.socketpair()
    ours.settimeout(0.2)
    theirs.setblocking(False)
    over = threading.Event()
    watch = threading.Thread(target=_lose_patience, args=(ours, over), daemon=True)
    watch.start()
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        over.set()
        theirs.close()
        watch.join()


def _lose_patience(signals: socket.socket, over: threading.Event) -> None:
    with signals:
        while not over.is_set():
            with suppress(TimeoutError):
                if not set(SIGNALS).isdisjoint(signals.recv(64)):
                    ask()
            if requested():
                if not over.wait(PATIENCE_SECONDS):
                    leave()
                return


def leave() -> NoReturn:
    """Say that the run can go on, and end this process, whatever its threads do."""
    with suppress(OSError):  # not by way of sys.stderr, which the signal may have caught in the middle of a line
        os.write(2, f"{LAST_WORDS}\n".encode())
    os._exit(EXIT_CODE)


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that are started within, and threads and what they start later, leave the signals of a group to us."""
    resource_tracker.ensure_running()  # before it is blocked: its start makes the calling thread hear again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_tracker() -> None:
    """Start the process that tidies up after pools before a pool does, so that it knows not to speak of it.

    Else it warns of the semaphores that it finds when we `leave` in a hurry.
    """
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (before, SILENCE)))
    try:
        resource_tracker.ensure_running()
    finally:
        os.environ.pop("PYTHONWARNINGS")
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


def start_worker() -> None:
    """The first thing that a worker process does: from now on SIGTERM asks it to stop, and it ends with its parent."""
    signal.signal(signal.SIGTERM, lambda number, frame: ask())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(EXIT_CODE)
