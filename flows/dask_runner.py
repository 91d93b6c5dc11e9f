"""Dask's workers as those who compute the tasks of a flow: of a cluster on this machine, or of one with an address."""

from __future__ import annotations

import logging
from typing import Any

from prefect_dask import DaskTaskRunner

from flows.pools import Stoppable
from tasks import stopping


class Dask(Stoppable, DaskTaskRunner):
    """A Dask cluster. One of our own ends with the flow; on another's, work in progress is left to its end."""

    def submit(self, *arguments: Any, **options: Any) -> Any:
        """Hand over one task; the first one starts the cluster, which leaves the terminal's Ctrl-C to us."""
        with stopping.deaf_to_ctrl_c():
            return super().submit(*arguments, **options)

    def ask_workers(self) -> None:
        """By a message, if the workers are ours."""
        if self._client is not None and self.address is None:
            self._client.run(_put_down)


def _put_down() -> None:
    """Run in a worker; that its tasks are cancelled is no news then."""
    logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)
    stopping.ask()
