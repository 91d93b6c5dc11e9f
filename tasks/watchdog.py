"""Watchdog: `python -m tasks.watchdog <mark>` ends every process of a service group once its parent is gone.

It waits for the end of its standard input, a pipe that only the parent holds: however the parent ends, kill -9
included, the kernel closes the pipe. Whose process is whose is told by a mark in the environment, which descendants
inherit even where they lead a session of their own (as Prefect's flow runs do). A death signal (PR_SET_PDEATHSIG)
would reach direct children only.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

MARK = "ROBUST_SERVICES"
GRACE_SECONDS = 5.0


def marked(mark: str) -> list[int]:
    """Living processes that carry the mark, without this one. Empty where there is no /proc."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            carries = wanted in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or belongs to somebody else
            continue
        if carries and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def tell(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each process that still lives."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_all(mark: str, groups: Iterable[int] = (), grace: float = GRACE_SECONDS) -> None:
    """SIGTERM to every marked process and to the process groups, SIGKILL to what lives after the grace."""
    groups = list(groups)
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 2.0)):
        tell([*marked(mark), *(-group for group in groups)], number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and (marked(mark) or any(map(_lives, groups))):
            time.sleep(0.1)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main(mark: str) -> None:
    """Read the leaders of process groups, one a line, until the parent is gone; then end them all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        word, _, number = line.partition(" ")
        (groups.add if word == "watch" else groups.discard)(int(number))
    end_all(mark, groups)


if __name__ == "__main__":
    main(sys.argv[1])
