"""Speckle noise: the noise grows with the light."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.corruptions import draws
from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness


class SpeckleNoise(PublishedCorruption):
    """Multiplicative Gaussian noise: clip(x + x sigma N(0, I), 0, 1)."""

    name: ClassVar[str] = "speckle-noise"
    family: ClassVar[str] = "noise"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    cifar: ClassVar[tuple[float, ...]] = (0.06, 0.1, 0.12, 0.16, 0.2)  # sigma
    imagenet: ClassVar[tuple[float, ...]] = (0.15, 0.2, 0.35, 0.45, 0.6)

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Noisy images [N,C,H,W]."""
        noise = draws.normal(rng.fork("noise"), tuple(images.shape[1:]), images)
        return images.addcmul(images, noise, value=self.constants(images))
