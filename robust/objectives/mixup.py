"""Mixup: training on weighted means of two images, with the same weights on their labels."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust.classifier import Classifier
from robust.objectives.mixing import agreement, draws_of, partners, two_label_loss
from robust.objectives.objective import Batch, Loss, Objective, State


class Mixup(Objective):
    """Convex combinations of pairs of images and of their labels.

    x~ = w x_i + (1 - w) x_j,  L = w CE(f(x~), y_i) + (1 - w) CE(f(x~), y_j),  w ~ Beta(alpha, alpha)
    (Zhang et al. 2018, arXiv 1710.09412, eq. 1); one w a batch and j a permutation of it, as in the authors' code.
    One forward and one backward pass an image.
    """

    name: ClassVar[str] = "mixup"
    family: ClassVar[str] = "augmentation"
    source: ClassVar[str] = "arXiv 1710.09412"

    alpha: float = Field(default=1.0, gt=0, description="of the Beta distribution; small values mix little")

    @property
    def whole_batch(self) -> str:
        """Why ranks cannot share its batches."""
        return "the images of a batch are mixed with each other"

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Cross-entropy against both labels; terms: weighted accuracy, the weight of the first image."""
        draws = draws_of(batch, self.name)
        weight, other = float(draws.beta(self.alpha, self.alpha)), partners(batch, draws)
        logits = classifier(weight * batch.images + (1 - weight) * batch.images[other])
        labels = (batch.labels, batch.labels[other])
        right = agreement(logits, *labels, weight)
        return Loss(two_label_loss(logits, *labels, weight), {"accuracy": right, "weight": right.new_tensor(weight)})
