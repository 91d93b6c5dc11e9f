"""Dask's workers as those who compute the tasks of a flow: of a cluster on this machine, or of one with an address."""

from __future__ import annotations

import logging
from contextlib import suppress

from prefect_dask import DaskTaskRunner

from flows.pools import Stoppable
from tasks import stopping


class Dask(Stoppable, DaskTaskRunner):
    """A Dask cluster. One of our own ends with the flow; on another's, work in progress is left to its end."""

    def ask_workers(self) -> None:
        """By a message, if the workers are ours."""
        if self._client is not None and self.address is None:
            with suppress(OSError):  # a cluster that is gone needs no asking
                self._client.run(_put_down)


def _put_down() -> None:
    """Run in a worker; that its tasks are cancelled is no news then."""
    logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)
    stopping.ask()
