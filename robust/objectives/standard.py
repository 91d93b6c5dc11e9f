"""Standard training: cross-entropy on the images as they are, the baseline of every comparison."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.objectives.objective import Batch, Loss, Objective, State


class Standard(Objective):
    """Empirical risk minimisation: cross-entropy on clean images.

    L = mean_n -sum_k q_nk log softmax(f(x_n))_k with q = (1 - s) onehot(y) + s / K, s the label smoothing
    (Szegedy et al. 2016, arXiv 1512.00567, section 7). One forward and one backward pass an image.
    """

    name: ClassVar[str] = "standard"
    family: ClassVar[str] = "baseline"
    source: ClassVar[str] = "cross-entropy"

    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of each label spread over all classes")

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Mean cross-entropy; terms: accuracy on the batch."""
        logits = classifier(batch.images)
        total = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        return Loss(total, {"accuracy": (logits.detach().argmax(1) == batch.labels).float().mean()})
