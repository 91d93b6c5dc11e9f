"""Zoom blur: the camera moved towards the scene."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.corruptions import warps
from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness


class ZoomBlur(PublishedCorruption):
    """The mean of the image and of its enlargements by 1, 1 + step, 1 + 2 step... about the middle."""

    name: ClassVar[str] = "zoom-blur"
    family: ClassVar[str] = "blur"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    # how many enlargements, and by how much each exceeds the one before
    cifar: ClassVar[tuple[tuple[int, float], ...]] = ((6, 0.01), (11, 0.01), (16, 0.01), (21, 0.01), (26, 0.01))
    imagenet: ClassVar[tuple[tuple[int, float], ...]] = ((11, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03))

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Blurred images [N,C,H,W]."""
        count, step = self.constants(images)
        total = 2 * images  # the image itself, and the enlargement by 1
        for k in range(1, count):
            total += warps.clipped_zoom(images, 1 + k * step)
        return total / (count + 1)
