"""Task runners by name: who computes the shards."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from flows.outcomes import InputError

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner

RUNNERS = ("threads", "processes", "dask")


def check_runner(kind: str) -> None:
    """Refuse what is no runner before anything is imported.

    Raises:
        InputError: naming the runners there are.
    """
    if kind not in RUNNERS:
        raise InputError(f"--runner {kind}: use {', '.join(RUNNERS[:-1])} or {RUNNERS[-1]}")


def task_runner(kind: str, workers: int | None = None) -> TaskRunner[Any]:
    """The task runner of that name: as many workers as told, one thread within each.

    Args:
        kind: `threads`, `processes` or `dask`.
        workers: how many; by default what `ROBUST_WORKERS` says, else one a core. A cluster at the address that
            `ROBUST_DASK` names (`tcp://scheduler:8786`) has its own.
    """
    check_runner(kind)
    count = workers or _asked() or os.cpu_count() or 1
    if kind == "dask":
        from flows.dask_runner import Dask

        address = os.environ.get("ROBUST_DASK")
        if address:
            return Dask(address=address)
        return Dask(cluster_kwargs={"n_workers": count, "threads_per_worker": 1, "dashboard_address": None})
    if kind == "processes":
        from flows.pools import Processes
        from tasks.stopping import start_worker

        return Processes(max_workers=count, initializer=start_worker)
    from prefect.task_runners import ThreadPoolTaskRunner

    return ThreadPoolTaskRunner(max_workers=count)


def _asked() -> int | None:
    text = os.environ.get("ROBUST_WORKERS", "")
    if text and not (text.isdigit() and int(text)):
        raise InputError(f"ROBUST_WORKERS={text}: expected a whole number of workers, for example 4")
    return int(text) if text else None
