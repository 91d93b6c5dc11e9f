"""Snow: falling flakes and a whitened scene."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robust.corruptions import draws, filters, warps
from robust.corruptions.colour import luminance
from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness


class Snow(PublishedCorruption):
    """Blurred streaks of bright flakes, added twice (once turned by 180 degrees) to a scene drawn towards white.

    Flakes: N(mean, spread) per pixel, enlarged, all below a threshold set to 0, blurred along a steep line. Scene:
    w x + (1 - w) max(x, 1.5 grey(x) + 0.5).
    """

    name: ClassVar[str] = "snow"
    family: ClassVar[str] = "weather"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    # mean, spread, enlargement, threshold, trail's radius and sigma, weight w of the scene
    cifar: ClassVar[tuple[tuple[float, float, float, float, int, float, float], ...]] = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )
    imagenet: ClassVar[tuple[tuple[float, float, float, float, int, float, float], ...]] = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Snowy images [N,C,H,W]."""
        mean, spread, zoom, threshold, radius, sigma, weight = self.constants(images)
        drawn = draws.normal(rng.fork("flakes"), (1, *images.shape[-2:]), images)
        flakes = warps.clipped_zoom(drawn.mul_(spread).add_(mean), zoom)
        flakes = flakes.mul(flakes.clone().ge_(threshold)).clamp_(0, 1)
        angles = draws.angles(rng.fork("angle"), low=-135, high=-45)
        flakes = filters.motion_blur(flakes, radius, sigma, angles)
        white = luminance(images).mul_(1.5).add_(0.5).maximum(images)
        return torch.add(flakes + flakes.flip(2, 3), white, alpha=1 - weight).add_(images, alpha=weight)
