"""Motion blur: the camera moved while the shutter was open."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.corruptions import draws, filters
from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness


class MotionBlur(PublishedCorruption):
    """Half a Gaussian along a line; each image has an angle of its own, uniform within 45 degrees of the horizontal."""

    name: ClassVar[str] = "motion-blur"
    family: ClassVar[str] = "blur"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    # radius (the trail has 2 radius + 1 pixels) and sigma, in pixels
    cifar: ClassVar[tuple[tuple[int, float], ...]] = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
    imagenet: ClassVar[tuple[tuple[int, float], ...]] = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Blurred images [N,C,H,W]."""
        radius, sigma = self.constants(images)
        angles = draws.angles(rng.fork("angle"), low=-45, high=45)
        return filters.motion_blur(images, radius, sigma, angles)
