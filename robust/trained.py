"""What a training ends with: its outcome, or one of two exceptions."""

from __future__ import annotations

from dataclasses import dataclass, field

from robust.checkpoint import Weights
from robust.classifier import Classifier


class TrainingError(RuntimeError):
    """The training cannot go on: it diverged, and no restart is left. The message is the diagnosis."""


class Interrupted(Exception):  # noqa: N818 - not an error: the caller asked for it
    """`stop` said so. The state is saved where a folder was given; the same call goes on from there."""


@dataclass(frozen=True)
class Trained:
    """What a training run leaves.

    Attributes:
        classifier: eval mode, with the best weights.
        best: weights after the epoch with the highest score on select; the latest of equals.
        last: weights after the last epoch.
        best_epoch: which epoch (from 1) `best` is.
        history: one row an epoch: epoch, learning_rate, loss and the objective's terms (means over the epoch),
            gradient_norm, and select_accuracy (clean), select_score (what the choice is made by) where select was
            looked at. Deterministic; pandas.DataFrame(history) is the table.
        forward, backward: images passed through the network, selection included; of all ranks together.
        seconds: wall time of all sessions together.
        snapshots: weights after the epochs that `training.snapshots` asks for.
        restarts: how often the training diverged and went back to its last good epoch.
    """

    classifier: Classifier
    best: Weights
    last: Weights
    best_epoch: int
    history: list[dict[str, float]]
    forward: int
    backward: int
    seconds: float
    snapshots: dict[int, Weights] = field(default_factory=dict)
    restarts: int = 0
