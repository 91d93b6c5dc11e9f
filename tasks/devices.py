"""Devices: a GPU is taken by one task at a time, over all processes of a home, by a lock that dies with its process.

The lock file is named by the GPU's own identity, so two processes agree on it whatever `CUDA_VISIBLE_DEVICES` shows
them and in whatever order. What is planned for a CPU takes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import stopping
from tasks.locks import POLL_SECONDS, LockTimeout, exclusive

if TYPE_CHECKING:
    from tasks.work import Work

TURN = "devices.lock"  # held by the one that is choosing


class DeviceError(ValueError):
    """The device that is asked for is not there; the message says what is."""


def gpus() -> dict[str, str]:
    """The GPUs that this process may use: identity -> torch's name, such as {"gpu-1e0f...": "cuda:0"}."""
    import torch

    if not torch.cuda.is_available():
        return {}
    return {f"gpu-{torch.cuda.get_device_properties(n).uuid}": f"cuda:{n}" for n in range(torch.cuda.device_count())}


@contextmanager
def taken(names: Sequence[str], folder: Path, count: int = 1) -> Iterator[tuple[str, ...]]:
    """Hold some of the devices, each alone; wait for as long as others hold too many of them.

    Args:
        names: identities of the devices, safe as file names; the first ones that are free are taken.
        folder: of the lock files, the same for all who share the devices.
        count: how many. They are collected by one taker at a time, so that two who want several do not wait for each
            other, and one who wants several is not passed for ever by those who want one.

    Raises:
        DeviceError: if there are not so many.
        Interrupted: if this process is asked to stop while it waits.
    """
    if not 1 <= count <= len(names):
        raise DeviceError(f"{count} device(s) are wanted and this process sees {len(names)}: {', '.join(names) or '-'}")
    with ExitStack() as held:
        found: list[str] = []
        with ExitStack() as turn:
            _first_free(turn, {TURN: folder / TURN})
            while len(found) < count:
                found.append(_first_free(held, {n: lock_of(n, folder) for n in names if n not in found}))
        yield tuple(found)


def lock_of(name: str, folder: Path) -> Path:
    """The lock file of a device."""
    return folder / f"device-{name}.lock"


def held(name: str, folder: Path) -> bool:
    """Whether some task computes on this device at this moment."""
    try:
        with exclusive(lock_of(name, folder), timeout=0):
            return False
    except LockTimeout:
        return True


@contextmanager
def on_its_device(work: Work) -> Iterator[Work]:
    """The work with GPUs of its own in `context`: `device`, and `devices` where it has several ranks.

    Raises:
        DeviceError: if it is planned for a GPU and there are too few.
    """
    asked, ranks = str(work.context.get("device", "cpu")), int(work.context.get("ranks", 1))
    if asked == "cpu":
        yield work
        return
    import torch

    there = {identity: name for identity, name in gpus().items() if asked in (name, name.partition(":")[0])}
    if len(there) < ranks:
        raise DeviceError(
            f"{work.label or work.key} wants {ranks} device(s) of kind {asked}, this process sees {len(there)}: "
            "run it where they are, lower training.ranks, or plan it anew with ROBUST_DEVICE=cpu"
        )
    with taken(tuple(there), work.folder.locks, ranks) as found:
        devices = [there[identity] for identity in found]
        with torch.cuda.device(devices[0]):
            yield work.model_copy(update={"context": {**work.context, "device": devices[0], "devices": devices}})


def _first_free(stack: ExitStack, locks: dict[str, Path]) -> str:
    """Wait until one of the locks can be had, and leave it to the stack."""
    while True:
        for name, path in locks.items():
            try:
                stack.enter_context(exclusive(path, timeout=0))
            except LockTimeout:
                continue
            return name
        if stopping.requested():
            from robust.trained import Interrupted

            raise Interrupted("stopped while waiting for a device")
        time.sleep(POLL_SECONDS)
