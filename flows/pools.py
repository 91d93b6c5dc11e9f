"""Threads and processes that compute the tasks of a flow, and put their work down when the flow is interrupted."""

from __future__ import annotations

import multiprocessing
from types import TracebackType
from typing import Any

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from tasks import stopping


class Stoppable(TaskRunner[Any]):
    """A task runner that does not wait for the end of what it computes when its flow is broken off by a signal."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Prefect has its own handler of SIGTERM while a flow runs; it raises what is no Exception
        if stopping.requested() or (kind is not None and not issubclass(kind, Exception)):
            with stopping.asked():
                self.ask_workers()
                super().__exit__(kind, error, trace)
        else:
            super().__exit__(kind, error, trace)

    def ask_workers(self) -> None:
        """Ask other processes that compute for this flow to stop; its threads know."""


class Threads(Stoppable, ThreadPoolTaskRunner[Any]):
    """Threads of this process."""


class Processes(Stoppable, ProcessPoolTaskRunner):
    """Processes of this machine, started by `stopping.start_worker`."""

    def submit(self, *arguments: Any, **options: Any) -> Any:
        """Hand over one task; a worker that is started for it leaves the terminal's Ctrl-C to us."""
        with stopping.deaf_to_ctrl_c():
            return super().submit(*arguments, **options)

    def ask_workers(self) -> None:
        """By SIGTERM."""
        for worker in multiprocessing.active_children():
            worker.terminate()
