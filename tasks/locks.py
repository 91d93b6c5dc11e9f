"""Locks that die with their process: the operating system holds them, a file only gives them a name.

Prefect's own file lock is the existence of a file: after kill -9 it stays, and the next run waits for ever. Here the
lock is `flock` on an open file, which the kernel releases when the process is gone, however it went.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.home import Home

POLL_SECONDS = 0.1
_held: dict[str, tuple[str, FileLock]] = {}  # what this process holds: locks belong to processes, so this is global
_guard = threading.Lock()


class LockTimeout(TimeoutError):  # noqa: N818 - reads as the message it is
    """A lock stayed with somebody else for longer than we wanted to wait."""


@contextmanager
def exclusive(path: Path, timeout: float | None = None) -> Iterator[None]:
    """Hold the lock named by a file; other threads, processes and runs wait.

    Args:
        path: the lock file; it stays behind and means nothing by itself.
        timeout: seconds to wait; None waits without end, 0 does not wait.

    Raises:
        LockTimeout: if it could not be had in time.
    """
    lock = _lock(path)
    try:
        lock.acquire(timeout=-1 if timeout is None else timeout)
    except Timeout as error:
        raise LockTimeout(f"another process holds {path.name}; waited {timeout:g} s") from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class FileLocks:
    """Prefect's `LockManager` protocol on `exclusive` locks, one file a record key under `<home>/locks`.

    It carries no state of its own, so it goes to other threads, processes and machines by pickle. The folder is that
    of the home in force when a lock is taken, unless one is given.
    """

    folder: Path | None = field(default=None)

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock of a record; True once it is ours, False if it could not be had in time."""
        if self.is_lock_holder(key, holder):
            return True
        path = self._path(key)
        lock = _lock(path)
        try:
            lock.acquire(timeout=-1 if acquire_timeout is None else acquire_timeout)
        except Timeout:
            return False
        with _guard:
            _held[str(path)] = (holder, lock)
        if hold_timeout is not None:
            timer = threading.Timer(hold_timeout, self._expire, (key, holder))
            timer.daemon = True
            timer.start()
        return True

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """As `acquire_lock`, without blocking the event loop."""
        return await asyncio.to_thread(self.acquire_lock, key, holder, acquire_timeout, hold_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back.

        Raises:
            ValueError: if this holder does not hold it.
        """
        path = str(self._path(key))
        with _guard:
            found, lock = _held.get(path, ("", None))
            if lock is None or found != holder:
                raise ValueError(f"{holder} does not hold the lock of {key}")
            del _held[path]
        lock.release()

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds it, in this process or another."""
        return not self._try(key, 0)

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder, of this process, holds it."""
        with _guard:
            return _held.get(str(self._path(key)), ("", None))[0] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds it; False if that took too long."""
        return self._try(key, timeout)

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """As `wait_for_lock`, without blocking the event loop."""
        return await asyncio.to_thread(self._try, key, timeout)

    def _try(self, key: str, timeout: float | None) -> bool:
        try:
            with exclusive(self._path(key), timeout):
                return True
        except LockTimeout:
            return False

    def _expire(self, key: str, holder: str) -> None:
        if self.is_lock_holder(key, holder):
            self.release_lock(key, holder)

    def _path(self, key: str) -> Path:
        folder = self.folder or Home.current().locks
        plain = re.fullmatch(r"[A-Za-z0-9][\w.-]{0,150}", key)
        return folder / f"{key if plain else hashlib.sha256(key.encode()).hexdigest()}.lock"


def _lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    # not bound to the thread: Prefect may release a lock from another thread than the one that took it
    return FileLock(path, thread_local=False, poll_interval=POLL_SECONDS)
