"""What objectives that train on pairs of images share: the draws of a step, and the loss against two labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robust.objectives.objective import Batch
from robust.randomness import generator


def draws_of(batch: Batch, purpose: str) -> np.random.Generator:
    """A stream for this step of this training: pairing is a matter of the batch, not of a sample."""
    return generator(batch.rng.seed, purpose, *batch.rng.purpose, batch.step)


def partners(batch: Batch, draws: np.random.Generator) -> Tensor:
    """A permutation [N] of the batch: with whom each image is paired."""
    return torch.from_numpy(draws.permutation(len(batch.images))).to(batch.images.device)


def two_label_loss(logits: Tensor, labels: Tensor, others: Tensor, share: float) -> Tensor:
    """share CE(f, y) + (1 - share) CE(f, y'), mean over the batch."""
    return share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, others)


def agreement(logits: Tensor, labels: Tensor, others: Tensor, share: float) -> Tensor:
    """Accuracy against both labels, weighted as they are."""
    found = logits.detach().argmax(1)
    return share * (found == labels).float().mean() + (1 - share) * (found == others).float().mean()
