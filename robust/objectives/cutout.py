"""Cutout: training on images with a square hole."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.objectives.objective import Batch, Loss, Objective, State
from robust.randomness import Randomness


class Cutout(Objective):
    """Cross-entropy on images of which a square is blanked to the mean colour.

    The square is centred at a uniform pixel of each image and may reach over the border (DeVries & Taylor 2017,
    arXiv 1708.04552, section 3: side 16 on CIFAR-10, 8 on CIFAR-100, half and a quarter of the image). It is filled
    with the training mean, which is the zero that the network sees. One forward and one backward pass an image.
    """

    name: ClassVar[str] = "cutout"
    family: ClassVar[str] = "augmentation"
    source: ClassVar[str] = "arXiv 1708.04552"

    size: float = Field(
        default=0.5, gt=0, le=1, description="side of the square, as a share of the image's shorter side"
    )

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Mean cross-entropy; terms: accuracy on the blanked images, share of pixels blanked."""
        hole = self.holes(batch.images, batch.rng)
        logits = classifier(torch.where(hole, classifier.mean.to(batch.images), batch.images))
        right = (logits.detach().argmax(1) == batch.labels).float().mean()
        return Loss(F.cross_entropy(logits, batch.labels), {"accuracy": right, "blanked": hole.float().mean()})

    def holes(self, images: Tensor, rng: Randomness) -> Tensor:
        """Mask [N,1,H,W] of each image's square."""
        height, width = images.shape[2:]
        side = max(1, round(self.size * min(height, width)))
        inside = [
            self._covered(extent, side, rng.fork(axis).integers(extent, (1,), like=images))
            for axis, extent in (("row", height), ("column", width))
        ]
        return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]

    def _covered(self, extent: int, side: int, centre: Tensor) -> Tensor:
        place = torch.arange(extent, device=centre.device)
        return (place >= centre - side // 2) & (place < centre - side // 2 + side)
