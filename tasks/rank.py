"""One rank of a shared training: `python -m tasks.rank FOLDER`, started by torchrun, which `tasks.torchrun` starts.

The folder holds the work; rank 0 writes the outcome there. Standard input is a pipe that the task holds: when it
closes, the task is gone or wants an end, and the rank ends at once.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import torch

from robust.checkpoint import write_atomically
from robust.progress import Progress, silent
from robust.ranks import Ranks, joined
from robust.trained import Interrupted, TrainingError
from tasks.fit import fit, write_outcome
from tasks.torchrun import STOP, WORK
from tasks.work import OtherCode, Work


def main(folder: Path) -> None:
    """Do this rank's part; exit status 0 also where all ranks stopped together, so that none is cut off."""
    threading.Thread(target=_end_with_the_task, daemon=True).start()
    work = Work.model_validate_json((folder / WORK).read_text(encoding="utf-8"))
    try:
        work.check_code()
        devices = work.context.get("devices", [work.context["device"]] * int(os.environ["LOCAL_WORLD_SIZE"]))
        with joined(devices[int(os.environ["LOCAL_RANK"])]) as ranks:
            _train(work, ranks, folder)
    except (ValueError, OSError, OtherCode, torch.OutOfMemoryError) as error:
        _tell(error, folder)
        raise


def _train(work: Work, ranks: Ranks, folder: Path) -> None:
    try:
        trained = fit(work, ranks, str(ranks.device), _say if ranks.first else silent, (folder / STOP).exists)
    except (Interrupted, TrainingError) as end:  # every rank raises it at the same step
        _tell(end, folder)
    else:
        if ranks.first:
            write_outcome(trained, folder)


def _tell(error: BaseException, folder: Path) -> None:
    """Leave word of the end, for the task to raise again."""
    told = {"kind": type(error).__name__, "message": str(error)}
    write_atomically(folder / f"failure-{os.environ['RANK']}.json", json.dumps(told).encode())


def _say(progress: Progress) -> None:
    sys.stdout.write(json.dumps({**asdict(progress), "terms": dict(progress.terms)}) + "\n")
    sys.stdout.flush()


def _end_with_the_task() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
