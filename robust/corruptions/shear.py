"""Shear: the picture leans to one side."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from robust.corruptions import draws, warps
from robust.corruptions.pieces import PiecewiseCorruption
from robust.randomness import Randomness

RADIANS = (0.2, 0.4, 0.6, 0.8, 1.0)


class Shear(PiecewiseCorruption):
    """Leans by 0.2 radians a severity, to the left or right, about the middle; outside is black.

    Each pixel is read at (x - sin(a) y, cos(a) y), as MNIST-C was made.
    """

    name: ClassVar[str] = "shear"
    family: ClassVar[str] = "geometry"
    source: ClassVar[str] = "Mu & Gilmer 2019, arXiv 1906.02337"

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Sheared images [N,C,H,W]."""
        angles = (RADIANS[self.severity - 1] * draws.signs(rng.fork("side"), 1, images)).flatten().tolist()
        maps = [warps.about_centre(images, 1, -math.sin(a), 0, math.cos(a)) for a in angles]
        return warps.affine(images, maps)
