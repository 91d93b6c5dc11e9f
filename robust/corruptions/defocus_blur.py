"""Defocus blur: a lens out of focus."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.corruptions import filters
from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness


class DefocusBlur(PublishedCorruption):
    """Blur by a disc of the given radius in pixels, its rim softened by a small Gaussian."""

    name: ClassVar[str] = "defocus-blur"
    family: ClassVar[str] = "blur"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    # radius and the softening's sigma, in pixels
    cifar: ClassVar[tuple[tuple[float, float], ...]] = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
    imagenet: ClassVar[tuple[tuple[float, float], ...]] = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Blurred images [N,C,H,W]."""
        radius, softening = self.constants(images)
        reach = 1 if radius <= 8 else 2  # taps to either side, as published
        return filters.gaussian_blur(filters.disc_blur(images, radius), softening, truncate=reach / softening)
