"""Training on a mixture of clean and noised images: the augmentation that the neural-ODE papers compare with."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.method import Exact, exact
from robust.objectives.objective import Batch, Loss, Objective, State
from robust.randomness import Randomness


class GaussianNoise(Objective):
    """Cross-entropy on images of which a share carries Gaussian noise of a random level.

    With probability `share` an image becomes clip(x + s z, 0, 1), z ~ N(0, I), s uniform over `sigmas`
    (Yan et al. 2020, On Robustness of Neural ODEs, arXiv 1910.05513, section 4: 50, 75 and 100 of 255 on MNIST).
    One forward and one backward pass an image.
    """

    name: ClassVar[str] = "gaussian-noise"
    family: ClassVar[str] = "augmentation"
    source: ClassVar[str] = "arXiv 1910.05513"

    sigmas: tuple[Exact, ...] = Field(
        default=(exact("50/255"), exact("75/255"), exact("100/255")),
        min_length=1,
        description="standard deviations of the noise, in [0,1] image units, for example 100/255",
    )
    share: float = Field(default=0.5, ge=0, le=1, description="probability that an image is noised")

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Mean cross-entropy on the mixture; terms: accuracy on it and the mean noise level."""
        noisy, levels = self.noised(batch.images, batch.rng)
        logits = classifier(noisy)
        right = (logits.detach().argmax(1) == batch.labels).float().mean()
        return Loss(F.cross_entropy(logits, batch.labels), {"accuracy": right, "sigma": levels.mean()})

    def noised(self, images: Tensor, rng: Randomness) -> tuple[Tensor, Tensor]:
        """Noised images [N,C,H,W] in [0,1] and each image's level [N], 0 where it stayed clean."""
        sigmas = torch.tensor([float(sigma) for sigma in self.sigmas], dtype=images.dtype, device=images.device)
        levels = sigmas[rng.fork("level").integers(len(sigmas), like=images)]
        levels = levels * (rng.fork("share").uniform(like=images) < self.share)
        noise = rng.fork("noise").normal(images.shape[1:], like=images)
        return (images + levels.view(-1, 1, 1, 1) * noise).clamp(0, 1), levels
