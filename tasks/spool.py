"""Spool: what tracking could not deliver waits here, in the order it happened, and is delivered at the next chance.

One file of JSON lines per process under `<home>/spool/`. Appending and draining never lose or repeat a line: a file is
set aside under a lock before it is read, every delivered event's id is noted beside it, and both are removed when the
file is done. The one event in flight when a process is killed is delivered again; its delivery is idempotent.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field

logger = logging.getLogger("robust.tracking")


class TrackingAway(ConnectionError):  # noqa: N818 - reads as the message it is
    """Tracking cannot take anything at the moment: server away, database locked or read-only, disk full."""


class TrackingRefused(ValueError):  # noqa: N818 - reads as the message it is
    """Tracking took the call and refused it for good; the same call would be refused again."""


class RunAddress(BaseModel):
    """Where a run is found again, in any process: experiment, key, and its parent's key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str = Field(min_length=1, description="the study's name")
    key: str = Field(min_length=1, max_length=250, pattern=r"^[A-Za-z0-9_.:/-]+$", description="unique in its parent")
    parent: str | None = Field(default=None, description="the key of the parent run; None for a flow's own run")


class Event(BaseModel):
    """One call to tracking, as data. `at` is in milliseconds, so a late delivery keeps the time it happened."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    address: RunAddress
    data: dict[str, Any] = Field(default_factory=dict)
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    at: int = Field(default_factory=lambda: time.time_ns() // 1_000_000)


class Spool:
    """The spool of one home.

    Args:
        folder: `<home>/spool`; made on the first event.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mine = f"{time.time_ns():020d}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"

    def append(self, event: Event) -> None:
        """Write one event.

        Raises:
            OSError: the disk is full or read-only; the event is not kept.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps(event.model_dump()) + "\n"
        with self._lock("append"), (self.folder / self._mine).open("a", encoding="utf-8") as file:
            file.write(line)

    def keep(self, event_id: str, paths: Sequence[Path]) -> list[Path]:
        """Hold files as they are now: a hard link where the disk allows one (ours are replaced, never rewritten)."""
        kept = []
        folder = self.folder / "files" / event_id
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            target = folder / path.name
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)
            kept.append(target)
        return kept

    def holds_mine(self) -> bool:
        """Whether something of this process waits, so that later events must wait behind it."""
        return (self.folder / self._mine).exists()

    def waiting(self) -> int:
        """How many events wait."""
        return sum(len(self._todo(path)) for path in self._files())

    def drain(self, deliver: Callable[[Event], None]) -> int:
        """Deliver everything in order of its file; stop when tracking goes away.

        Returns:
            How many events still wait. Another process that drains already is left to it.
        """
        if not self._files():
            return 0
        try:
            with self._lock("drain", timeout=0):
                for path in self._set_aside():
                    self._deliver_file(path, deliver)
        except (Timeout, TrackingAway, OSError) as reason:
            logger.debug("spool not drained: %s", reason)
        return self.waiting()

    def _deliver_file(self, path: Path, deliver: Callable[[Event], None]) -> None:
        for event in self._todo(path):
            try:
                deliver(event)
            except TrackingRefused as refusal:
                self._refuse(event, refusal)
            with path.with_suffix(".done").open("a", encoding="utf-8") as done:
                done.write(event.id + "\n")
            shutil.rmtree(self.folder / "files" / event.id, ignore_errors=True)
        path.unlink()
        path.with_suffix(".done").unlink(missing_ok=True)

    def _refuse(self, event: Event, refusal: TrackingRefused) -> None:
        logger.warning("tracking refused a %s of run %s: %s", event.what, event.address.key, refusal)
        with (self.folder / "refused.log").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**event.model_dump(), "refused": str(refusal)}) + "\n")

    def _set_aside(self) -> list[Path]:
        with self._lock("append"):
            for path in self.folder.glob("*.jsonl"):
                os.replace(path, path.with_name(f"{path.stem}-{uuid.uuid4().hex[:8]}.sent"))
        return sorted(self.folder.glob("*.sent"))

    def _files(self) -> list[Path]:
        return sorted([*self.folder.glob("*.sent"), *self.folder.glob("*.jsonl")])

    def _todo(self, path: Path) -> list[Event]:
        done_file = path.with_suffix(".done")
        done = set(done_file.read_text(encoding="utf-8").split()) if done_file.exists() else set()
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        return [event for event in map(_read, lines) if event is not None and event.id not in done]

    @contextmanager
    def _lock(self, name: str, timeout: float = 60) -> Iterator[None]:
        with FileLock(self.folder / f".{name}.lock", timeout=timeout):
            yield


def _read(line: str) -> Event | None:
    try:
        return Event.model_validate(json.loads(line))
    except ValueError:  # the line a killed process was writing
        logger.warning("the spool holds a torn line, which is skipped: %s", line[:80])
        return None
