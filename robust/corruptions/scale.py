"""Scale: the picture shrinks on a black ground."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.corruptions import warps
from robust.corruptions.pieces import PiecewiseCorruption
from robust.randomness import Randomness

FACTORS = (0.9, 0.8, 0.7, 0.6, 0.5)


class Scale(PiecewiseCorruption):
    """Shrinks to 0.9, 0.8, 0.7, 0.6 or 0.5 of the size, in the middle of a black ground."""

    name: ClassVar[str] = "scale"
    family: ClassVar[str] = "geometry"
    source: ClassVar[str] = "Mu & Gilmer 2019, arXiv 1906.02337"

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Smaller pictures in images of the same size [N,C,H,W]."""
        step = 1 / FACTORS[self.severity - 1]
        return warps.affine(images, [warps.about_centre(images, step, 0, 0, step)] * len(images))
