"""Training on images moved by one step of gradient ascent: what J1, J2 and their general form share.

The step is taken in eval mode with the weights frozen, as the authors do, so that an image's step does not depend on
its batch; the cross-entropy of the moved images alone is then fitted in train mode.
"""

from __future__ import annotations

from abc import abstractmethod

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robust.attacks.attack import input_gradient
from robust.classifier import Classifier
from robust.losses import cross_entropy
from robust.method import Exact, exact
from robust.objectives.objective import Batch, Loss, Objective, State


class OneStep(Objective):
    """Base of objectives that fit x + eps d(x), d a direction of ascent of the loss at x."""

    eps: Exact = Field(
        default=exact("1/100"), ge=0, description="length of the step in [0,1] image units; the authors' preset is 0.01"
    )
    clamp: bool = Field(default=False, description="cut moved images to [0,1]; the authors do not")

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The step [N,C,H,W] for eps = 1, given the gradient [N,C,H,W] of each sample's loss."""

    def moved(self, classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
        """The images [N,C,H,W] after the step; one forward and one backward pass an image."""
        with classifier.frozen():
            gradient, _, _ = input_gradient(classifier, images, lambda logits: cross_entropy(logits, labels))
        moved = images + float(self.eps) * self.direction(gradient)
        return moved.clamp(0, 1) if self.clamp else moved

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Mean cross-entropy on the moved images; terms: accuracy on them."""
        logits = classifier(self.moved(classifier, batch.images, batch.labels))
        right = (logits.detach().argmax(1) == batch.labels).float().mean()
        return Loss(F.cross_entropy(logits, batch.labels), {"accuracy": right})
