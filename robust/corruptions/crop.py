"""Crops: a window of the picture fills the image."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.corruptions import warps
from robust.corruptions.pieces import PiecewiseCorruption
from robust.randomness import Randomness

SHARES = (0.95, 0.9, 0.85, 0.8, 0.7)


class Crop(PiecewiseCorruption):
    """A window of 0.95 to 0.7 of the side, anywhere in the image, is enlarged to the image's size.

    The test of Azulay & Weiss 2019: a net that understands the scene does not mind where the photographer stood.
    """

    name: ClassVar[str] = "crop"
    family: ClassVar[str] = "geometry"
    source: ClassVar[str] = "Azulay & Weiss 2019, arXiv 1805.12177"

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Enlarged windows [N,C,H,W]."""
        share = SHARES[self.severity - 1]
        height, width = images.shape[-2:]
        free = rng.fork("corner").uniform((2,), high=1 - share).double().tolist()
        # output pixel k, whose middle is k + 1/2, shows the window's point corner + share (k + 1/2)
        half = (share - 1) / 2
        maps = [(share, 0.0, x * width + half, 0.0, share, y * height + half) for x, y in free]
        return warps.affine(images, maps, outside="border")
