"""Processes that compute the tasks of a flow, and put their work down when the flow is interrupted."""

from __future__ import annotations

import multiprocessing
from types import TracebackType
from typing import Any, Self

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from tasks import stopping


class Stoppable(TaskRunner[Any]):
    """A task runner whose workers leave signals to this process, and are asked to stop when its flow is broken off."""

    def __enter__(self) -> Self:
        stopping.start_tracker()
        with stopping.deaf():
            return super().__enter__()

    def submit(self, *arguments: Any, **options: Any) -> Any:
        """Hand over one task; the workers are started when the first ones come."""
        with stopping.deaf():
            # abstract in TaskRunner; what is called is the pool's, which stands after this class among the bases
            return super().submit(*arguments, **options)  # type: ignore[safe-super]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if stopping.requested() or (kind is not None and not issubclass(kind, Exception)):
            self.ask_workers()
        super().__exit__(kind, error, trace)

    def ask_workers(self) -> None:
        """Ask the processes that compute for this flow to stop."""


class Processes(Stoppable, ProcessPoolTaskRunner):
    """Processes of this machine, started by `stopping.start_worker`."""

    def ask_workers(self) -> None:
        """By SIGTERM."""
        for worker in multiprocessing.active_children():
            worker.terminate()
