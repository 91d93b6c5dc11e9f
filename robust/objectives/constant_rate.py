"""The control arm of the margin experiments: plain gradient descent at one constant learning rate."""

from __future__ import annotations

import math
from typing import ClassVar

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.objectives.margin_tracking import MarginTracking
from robust.objectives.objective import Batch, Loss, State


class ConstantRate(MarginTracking):
    """Plain SGD at a constant rate that records margin and loss as `loss-based-lr` does: its control.

    theta <- theta - lr grad L_batch; lr is 0.01 for MNIST and 0.1 for CIFAR-10 in Lyu & Li 2020, arXiv 1906.05890. The
    loss then falls as 1/t up to logarithms, and the margin hardly moves. One forward and one backward pass an image,
    and a forward pass more at the end of each epoch. Every epoch is accepted.
    """

    name: ClassVar[str] = "constant-rate"
    family: ClassVar[str] = "margin maximisation"
    source: ClassVar[str] = "arXiv 1906.05890"

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Mean loss of the batch."""
        return Loss(self.log_mean_loss(classifier, batch).exp())

    def after_epoch(self, classifier: Classifier, state: State, train_set: Dataset) -> dict[str, float]:
        """Margins of the training set; see `MarginTracking` for the columns."""
        state["tries"] += 1
        state["accepted"] += 1
        numbers = self.look(classifier, state, train_set).row()
        return self.row(state, math.log(self.training.lr), False, numbers)
