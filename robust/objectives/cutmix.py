"""CutMix: training on images with a patch of another image, labels weighted by area."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from robust.classifier import Classifier
from robust.objectives.mixing import agreement, draws_of, partners, two_label_loss
from robust.objectives.objective import Batch, Loss, Objective, State


class CutMix(Objective):
    """A box of each image is replaced by the same box of another; labels are weighted by the areas.

    A box of sides sqrt(1 - w) H and sqrt(1 - w) W, w ~ Beta(alpha, alpha), centred at a uniform pixel and cut at the
    border, comes from image j; L = w' CE(f(x~), y_i) + (1 - w') CE(f(x~), y_j) with w' the share of pixels that
    image i really keeps (Yun et al. 2019, arXiv 1905.04899, eq. 1 and 2). One box a batch, as in the authors' code.
    One forward and one backward pass an image.
    """

    name: ClassVar[str] = "cutmix"
    family: ClassVar[str] = "augmentation"
    source: ClassVar[str] = "arXiv 1905.04899"

    alpha: float = Field(default=1.0, gt=0, description="of the Beta distribution of the share that is kept")
    share: float = Field(default=0.5, ge=0, le=1, description="probability that a batch is mixed; 0.5 on CIFAR-10")

    @property
    def whole_batch(self) -> str:
        """Why ranks cannot share its batches."""
        return "the images of a batch are cut into each other"

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Cross-entropy against both labels; terms: weighted accuracy, share of pixels kept."""
        draws = draws_of(batch, self.name)
        other = partners(batch, draws)
        mixed, kept = batch.images, 1.0
        if draws.random() < self.share:
            mixed, kept = self.mixed(batch.images, batch.images[other], draws)
        logits = classifier(mixed)
        labels = (batch.labels, batch.labels[other])
        right = agreement(logits, *labels, kept)
        return Loss(two_label_loss(logits, *labels, kept), {"accuracy": right, "weight": right.new_tensor(kept)})

    def mixed(self, images: Tensor, others: Tensor, draws: np.random.Generator) -> tuple[Tensor, float]:
        """Images [N,C,H,W] with a box of the others, and the share of pixels that they keep."""
        height, width = images.shape[2:]
        side = math.sqrt(1 - float(draws.beta(self.alpha, self.alpha)))
        row, column = int(draws.integers(height)), int(draws.integers(width))
        tall, wide = int(height * side), int(width * side)
        top, bottom = max(0, row - tall // 2), min(height, row + tall // 2)
        left, right = max(0, column - wide // 2), min(width, column + wide // 2)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        return mixed, 1 - (bottom - top) * (right - left) / (height * width)
