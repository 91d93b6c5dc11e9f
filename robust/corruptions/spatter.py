"""Spatter: drops of water, or mud, on the lens."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robust.corruptions import draws, filters
from robust.corruptions.colour import painted
from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness

WATER = (175 / 255, 238 / 255, 238 / 255)  # pale turquoise
MUD = (63 / 255, 42 / 255, 20 / 255)


class Spatter(PublishedCorruption):
    """Blobs where blurred noise exceeds a threshold: at severities 1 to 3 water that brightens, at 4 and 5 opaque mud.

    Noise: N(mean, spread) blurred by sigma. Water adds strength * shade * pale turquoise, with the drop's height
    above the threshold lit from one side; the published code shades by a distance transform of edges instead. Mud
    covers the pixels where the blobs, blurred once more, stay above 0.8.
    """

    name: ClassVar[str] = "spatter"
    family: ClassVar[str] = "weather"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    # mean, spread, sigma in pixels, threshold, strength of water or second sigma of mud, mud?
    cifar: ClassVar[tuple[tuple[float, float, float, float, float, bool], ...]] = (
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    )
    imagenet: ClassVar[tuple[tuple[float, float, float, float, float, bool], ...]] = (
        (0.65, 0.3, 4, 0.69, 0.6, False),
        (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True),
    )

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Spattered images [N,C,H,W]."""
        mean, spread, sigma, threshold, strength, mud = self.constants(images)
        drawn = draws.normal(rng.fork("liquid"), (1, *images.shape[-2:]), images)
        liquid = filters.gaussian_blur(drawn.mul_(spread).add_(mean), sigma)
        drops = liquid.gt_(threshold)
        if mud:
            cover = filters.gaussian_blur(drops, strength)
            cover = cover.masked_fill(cover < 0.8, 0)
            return images * (1 - cover) + cover * painted(MUD, images)
        return torch.addcmul(images, _shade(drops), strength * painted(WATER, images))


def _shade(drops: Tensor) -> Tensor:
    """How bright drops [N,1,H,W] look, in [0,1]: nearly clear, with a bright rim on the side of the light."""
    height = filters.gaussian_blur(drops, 1.0)
    towards = height - height.roll((2, 2), (2, 3))
    return towards.mul_(0.9).add_(0.15).clamp_(0.03, 1).mul_(drops)
