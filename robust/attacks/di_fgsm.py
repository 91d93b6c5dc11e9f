"""DI-FGSM: momentum steps whose gradients see a randomly resized image."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import input_gradient
from robust.attacks.mi_fgsm import MIFGSM
from robust.classifier import Classifier
from robust.losses import loss_by_name
from robust.randomness import Randomness


class DIFGSM(MIFGSM):
    """Diverse-inputs FGSM: each gradient is taken through a random shrink and shift of the image, for transfer.

    Xie et al. 2019, arXiv 1803.06978, section 3.3: with probability p the image is resized to a random smaller size
    and padded with zeros at a random place back to its own size; the attack climbs the loss of what comes out, with
    the momentum of `mi-fgsm` (M-DI2-FGSM). Each sample draws its own size and place.
    """

    name: ClassVar[str] = "di-fgsm"
    family: ClassVar[str] = "transfer"
    source: ClassVar[str] = "Xie et al. 2019, arXiv 1803.06978"

    probability: float = Field(default=0.5, ge=0, le=1, description="how often an image is transformed")
    smallest: float = Field(default=0.9, gt=0, le=1, description="smallest side after resizing, as a share of its own")

    def gradient(self, classifier: Classifier, x: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Gradient through the random transformation, [N,C,H,W]."""
        view = self.transformation(x, rng)
        loss = self.loss
        seen = _Through(classifier, view)
        return input_gradient(seen, x, lambda z: loss_by_name(loss, z.shape[1])(z, labels))[0]

    def transformation(self, x: Tensor, rng: Randomness) -> Callable[[Tensor], Tensor]:
        """The map of this step: an affine sampling grid [N,H,W,2] that shrinks and shifts, one for each sample."""
        draws = rng.fork("view").uniform((4,), like=x)
        scale = self.smallest + (1 - self.smallest) * draws[:, 1]
        scale = torch.where(draws[:, 0] < self.probability, scale, 1.0)
        slack = 1 - scale  # how far the shrunk image can move in either direction, in [-1,1] coordinates
        theta = x.new_zeros(len(x), 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
        theta[:, :, 2] = -(2 * draws[:, 2:] - 1) * (slack / scale)[:, None]
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return lambda images: F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


class _Through(Classifier):
    """The classifier behind a differentiable view; passes are counted by the classifier itself."""

    def __init__(self, classifier: Classifier, view: Callable[[Tensor], Tensor]) -> None:
        torch.nn.Module.__init__(self)
        self._classifier, self._view = classifier, view
        self.num_classes = classifier.num_classes

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self._classifier(self._view(images))
        return logits
