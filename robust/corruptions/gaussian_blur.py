"""Gaussian blur."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.corruptions import filters
from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness


class GaussianBlur(PublishedCorruption):
    """Gaussian blur of sigma pixels, cut at four standard deviations; the edge pixel goes on outside."""

    name: ClassVar[str] = "gaussian-blur"
    family: ClassVar[str] = "blur"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    cifar: ClassVar[tuple[float, ...]] = (0.4, 0.6, 0.7, 0.8, 1.0)  # sigma in pixels
    imagenet: ClassVar[tuple[float, ...]] = (1.0, 2.0, 3.0, 4.0, 6.0)

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Blurred images [N,C,H,W]."""
        return filters.gaussian_blur(images, self.constants(images))
