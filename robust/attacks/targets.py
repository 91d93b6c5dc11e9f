"""Which wrong classes a targeted attack aims at, and the losses that lead there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robust.attacks.survivors import Survivors
from robust.classifier import Classifier
from robust.losses import dlr_targeted
from robust.randomness import Randomness

Climb = Callable[[Survivors, Randomness, Tensor], None]  # one run from one start towards the given classes


def likely_targets(classifier: Classifier, images: Tensor, labels: Tensor, count: int) -> Tensor:
    """The `count` likeliest wrong classes of each image, likeliest first, [N, min(count, K-1)]; one forward pass."""
    with torch.no_grad():
        logits = classifier(images)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(count, logits.shape[1] - 1), dim=1).indices


def towards_each(classifier: Classifier, survivors: Survivors, count: int, restarts: int, climb: Climb) -> Tensor:
    """One run after another towards each of the `count` likeliest wrong classes; what is left at the end, [N,C,H,W].

    The start towards the t-th class is drawn from rng.fork("target", t).fork("restart", r).
    """
    if not len(survivors):
        return survivors.best
    targets = likely_targets(classifier, survivors.origin, survivors.labels, count)
    for rank in range(targets.shape[1]):
        for restart in range(restarts):
            if len(survivors):
                start = survivors.rng.fork("target", rank).fork("restart", restart)
                climb(survivors, start, targets[survivors.rows, rank])
    return survivors.best


def passes_towards_each(count: int, num_classes: int, run: tuple[int, int]) -> tuple[int, int]:
    """Passes of as many runs as there are targets, and the one forward pass that chooses them."""
    runs = min(count, num_classes - 1)
    return (1 + runs * run[0], runs * run[1])


def margin_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """z_t - z_y, [N]: positive where the target beats the label."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]


def dlr_or_margin_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The targeted DLR where it is defined (4 classes and more), else the targeted margin, [N]."""
    loss = dlr_targeted if logits.shape[1] >= 4 else margin_targeted
    return loss(logits, labels, targets)
