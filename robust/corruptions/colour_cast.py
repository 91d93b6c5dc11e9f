"""Colour cast: the camera's white balance is wrong."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from robust.corruptions.colour import LUMA
from robust.corruptions.pieces import PiecewiseCorruption
from robust.randomness import Randomness

STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5)


class ColourCast(PiecewiseCorruption):
    """Channel k is multiplied by 1 + s cos(h - 120 k degrees), with a hue h drawn for each image.

    The errors of white balance of Afifi & Brown 2019, as gains of the channels. A grey image [N,1,H,W] is multiplied by
    the luma of the gains: what a black-and-white film would see.
    """

    name: ClassVar[str] = "colour-cast"
    family: ClassVar[str] = "light"
    source: ClassVar[str] = "Afifi & Brown 2019, arXiv 1912.06960"

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] in another light."""
        hues = rng.fork("hue").uniform(high=2 * math.pi).tolist()
        strength = STRENGTHS[self.severity - 1]
        gains = [[1 + strength * math.cos(hue - k * 2 * math.pi / 3) for k in range(3)] for hue in hues]
        if images.shape[1] != 3:
            gains = [[sum(weight * gain for weight, gain in zip(LUMA, row))] for row in gains]
        return images * images.new_tensor(gains)[:, :, None, None]
