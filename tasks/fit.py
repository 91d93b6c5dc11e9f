"""Fit: the training that a `train` work describes, and the files that its outcome is kept in.

Both ways lead through here: the task that trains by itself, and each rank of a training that several processes share.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tasks.networks import split_of
from tasks.work import Work

if TYPE_CHECKING:
    from robust.models.model import Model
    from robust.objectives.objective import Objective
    from robust.progress import Listener
    from robust.ranks import Ranks
    from robust.trained import Trained

OUTCOME = "outcome.json"


def checkpoints_of(work: Work) -> Path:
    """The folder of the training's checkpoint, which an interrupted run leaves under the same key."""
    return work.folder.checkpoints / work.key


def fit(work: Work, ranks: Ranks, device: str, listener: Listener, stop: Callable[[], bool]) -> Trained:
    """Train, or go on from the checkpoint. Raises what `robust.training.train` raises."""
    from robust.registry import create
    from robust.training import train

    settings, context = work.settings, work.context
    return train(
        cast("Model", create("model", settings["model"])),
        cast("Objective", create("objective", settings["objective"])),
        split_of(context["dataset"], "train"),
        split_of(context["dataset"], "select"),
        seed=settings["seed"],
        folder=checkpoints_of(work),
        device=device,
        threads=context["threads"],
        checkpoint_seconds=context.get("checkpoint_seconds", 60.0),
        listener=listener,
        stop=stop,
        ranks=ranks,
    )


def write_outcome(trained: Trained, folder: Path) -> None:
    """The weights, the history and the numbers of a training as files; `outcome.json` is the last."""
    from robust.checkpoint import save_weights, write_atomically

    weights = {"best": trained.best, "last": trained.last}
    weights |= {f"epoch-{epoch}": kept for epoch, kept in trained.snapshots.items()}
    for role, values in weights.items():
        save_weights(values, folder / f"{role}.safetensors")
    (folder / "history.json").write_text(json.dumps(trained.history))
    outcome = {
        "files": {**{role: f"{role}.safetensors" for role in weights}, "history": "history.json"},
        "metrics": {
            "best_epoch": trained.best_epoch,
            "forward": trained.forward,
            "backward": trained.backward,
            "restarts": trained.restarts,
        },
        "seconds": trained.seconds,
    }
    write_atomically(folder / OUTCOME, json.dumps(outcome).encode())


def read_outcome(folder: Path) -> dict[str, Any]:
    """What `write_outcome` wrote: `files` by role, `metrics`, `seconds`."""
    found: dict[str, Any] = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
    return found
