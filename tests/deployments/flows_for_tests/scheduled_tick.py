"""A flow that proves it ran: it leaves its run's id in the home."""

import os
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run


@flow(name="tick")
def tick(word: str = "tick") -> str:
    folder = Path(os.environ["ROBUST_HOME"]) / "ticks"
    folder.mkdir(exist_ok=True)
    (folder / str(flow_run.id)).write_text(word)
    return word
