"""Which wrong classes a targeted attack aims at, and the losses that lead there."""

from __future__ import annotations

import torch
from torch import Tensor

from robust.classifier import Classifier
from robust.losses import dlr_targeted


def likely_targets(classifier: Classifier, images: Tensor, labels: Tensor, count: int) -> Tensor:
    """The `count` likeliest wrong classes of each image, likeliest first, [N, min(count, K-1)]; one forward pass."""
    with torch.no_grad():
        logits = classifier(images)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(count, logits.shape[1] - 1), dim=1).indices


def margin_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """z_t - z_y, [N]: positive where the target beats the label."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]


def dlr_or_margin_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The targeted DLR where it is defined (4 classes and more), else the targeted margin, [N]."""
    loss = dlr_targeted if logits.shape[1] >= 4 else margin_targeted
    return loss(logits, labels, targets)
