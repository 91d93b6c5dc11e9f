"""What the score-based black-box attacks share: a gradient estimated from losses, and a descent that samples leave."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robust.attacks.attack import fooled
from robust.classifier import Classifier
from robust.losses import LossName, loss_by_name

PACKED = 32  # directions classified in one pass: enough to fill the processor, few enough to fit in memory


@torch.no_grad()
def antithetic_gradient(
    classifier: Classifier, images: Tensor, labels: Tensor, directions: Tensor, radius: float, loss: LossName
) -> Tensor:
    """Finite-difference gradient [n,C,H,W]: mean over i of (L(x + r u_i) - L(x - r u_i)) / (2 r) u_i.

    Args:
        classifier: narrowed to the rows of `images`; it counts two forward passes a direction.
        images: [n,C,H,W]; queries may leave the box by `radius` and are clipped to it.
        directions: u, [n,m,C,H,W].
        radius: r, in [0,1] image units.
        loss: the name of L.
    """
    total = torch.zeros_like(images)
    for block in directions.split(PACKED, dim=1):
        moves = radius * block
        queries = torch.stack([images[:, None] + moves, images[:, None] - moves], dim=1).clamp(0.0, 1.0)
        copies = 2 * block.shape[1]
        logits = classifier(queries.flatten(0, 2))
        losses = loss_by_name(loss, logits.shape[1])(logits, labels.repeat_interleave(copies))
        values = losses.view(len(images), 2, -1)
        slopes = (values[:, 0] - values[:, 1]) / (2 * radius)
        total += torch.einsum("nm,nmchw->nchw", slopes, block)
    return total / directions.shape[1]


def descend(
    classifier: Classifier, images: Tensor, labels: Tensor, start: Tensor, steps: int, step: Callable[..., Tensor]
) -> Tensor:
    """Images [N,C,H,W] after `step` was applied until each sample was fooled; it then leaves. One query a step tells.

    Args:
        step: (classifier, current images, rows, index) -> next images, for the rows that still stand.
    """
    best = start.clone()
    rows = torch.arange(len(images), device=images.device)
    for index in range(steps + 1):
        view = classifier.select(rows)
        with torch.no_grad():
            standing = ~fooled(view(best[rows]), labels[rows])
        rows = rows[standing]
        if index == steps or not len(rows):
            break
        best[rows] = step(classifier.select(rows), best[rows], rows, index)
    return best
