"""Frost: ice crystals on the window."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robust.corruptions import draws, filters
from robust.corruptions.colour import painted
from robust.corruptions.pieces import PublishedCorruption
from robust.corruptions.plasma import PLASMA_PIECE, plasma, ridges
from robust.randomness import Randomness


class Frost(PublishedCorruption):
    """a x + b ice: a darkened scene behind ice, where the ice is drawn afresh for each image.

    The published code crops photographs of frost. Here ice is procedural: clouds of a plasma fractal, grains that are
    brushed in one of three directions 60 degrees apart, as ice grows, bright veins between them, and a cold tint. Its
    mean and spread are near those of the published photographs (about 0.57 and 0.14).
    """

    name: ClassVar[str] = "frost"
    family: ClassVar[str] = "weather"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    # a, b
    cifar: ClassVar[tuple[tuple[float, float], ...]] = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
    imagenet: ClassVar[tuple[tuple[float, float], ...]] = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))

    piece: ClassVar[int] = PLASMA_PIECE

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Frosted images [N,C,H,W]."""
        scene, ice = self.constants(images)
        tint = painted((0.88, 1.0, 1.06), images)
        return torch.addcmul(images * scene, self._ice(images, rng), ice * tint)

    @staticmethod
    def _ice(images: Tensor, rng: Randomness) -> Tensor:
        """Ice [N,1,H,W], mostly between 0.3 and 0.9."""
        height, width = images.shape[-2:]
        clouds, map_of_grains = (
            plasma(rng.fork(part), height, width, decay, images) for part, decay in (("clouds", 1.5), ("grains", 1.8))
        )
        rough = draws.normal(rng.fork("rough"), (1, height, width), images)
        turn = draws.angles(rng.fork("turn"), low=0, high=60)
        length = max(3, min(height, width) // 20)
        along = [  # circular, so that no edge is smeared into the picture
            filters.motion_blur(rough, length, length, [t + 60 * k for t in turn], outside="circular") for k in range(3)
        ]
        brushed = along[0]
        for low, grain in zip((0.4, 0.6), along[1:]):
            brushed = torch.lerp(brushed, grain, map_of_grains.clone().ge_(low))
        veins = ridges(map_of_grains).square_().square_().square_()
        grey = clouds.mul_(0.4).add_(0.36).add_(brushed, alpha=0.09 * length**0.5).add_(veins, alpha=0.15)
        return grey.clamp_(0, 1)
