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
        raise InputError(f"--runner {kind}: use threads, processes or dask")


def task_runner(kind: str, workers: int | None = None) -> TaskRunner[Any]:
    """The task runner of that name; one worker a core unless told otherwise, one thread within each."""
    check_runner(kind)
    count = workers or os.cpu_count() or 1
    if kind == "threads":
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=count)
    if kind == "processes":
        from prefect.task_runners import ProcessPoolTaskRunner

        return ProcessPoolTaskRunner(max_workers=count)
    from prefect_dask import DaskTaskRunner

    return DaskTaskRunner(cluster_kwargs={"n_workers": count, "threads_per_worker": 1})
