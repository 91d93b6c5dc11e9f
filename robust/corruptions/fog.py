"""Fog: drifting, uneven haze."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robust.corruptions.pieces import PublishedCorruption
from robust.corruptions.plasma import PLASMA_PIECE, plasma
from robust.randomness import Randomness


class Fog(PublishedCorruption):
    """(x + c plasma) m / (m + c): a plasma fractal is added and the brightest value m of the image is kept."""

    name: ClassVar[str] = "fog"
    family: ClassVar[str] = "weather"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    # c, and how fast the fractal's detail decays (less: rougher)
    cifar: ClassVar[tuple[tuple[float, float], ...]] = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
    imagenet: ClassVar[tuple[tuple[float, float], ...]] = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))

    piece: ClassVar[int] = PLASMA_PIECE

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Foggy images [N,C,H,W]."""
        amount, decay = self.constants(images)
        height, width = images.shape[-2:]
        haze = plasma(rng.fork("fog"), height, width, decay, images)
        brightest = images.amax((1, 2, 3), keepdim=True)
        kept = brightest / (brightest + amount)
        return torch.addcmul(haze.mul_(amount * kept), images, kept)
