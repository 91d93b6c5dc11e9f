"""FGSM: one full step along the steepest direction of the loss."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.attacks.attack import FixedBudget, input_gradient
from robust.classifier import Classifier
from robust.losses import LossName, loss_by_name
from robust.randomness import Randomness


class FGSM(FixedBudget):
    """Fast gradient sign method: one step of size eps along the steepest ascent direction.

    Goodfellow et al. 2015, arXiv 1412.6572, section 4:  x' = x + eps sign(grad_x L(f(x), y)); in l2 the step is
    eps g/|g|_2, in l1 the largest coordinate alone. Costs one forward and one backward pass. Exact for a linear
    two-class model; anywhere else it is the weakest gradient attack, and no evidence of robustness.
    """

    name: ClassVar[str] = "fgsm"
    family: ClassVar[str] = "fixed budget"
    source: ClassVar[str] = "Goodfellow et al. 2015, arXiv 1412.6572"

    loss: LossName = Field(default="ce", description="ce, margin, dlr, or auto (dlr from 3 classes on, else margin)")

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb`; draws nothing."""
        if not len(labels):
            return images.clone()
        gradient, _, _ = input_gradient(
            classifier, images, lambda logits: loss_by_name(self.loss, logits.shape[1])(logits, labels)
        )
        return self.threat.project(images + self.threat.radius * self.threat.steepest(gradient), images)

    def passes(self, num_classes: int) -> tuple[int, int]:
        """One forward, one backward."""
        return (1, 1)
