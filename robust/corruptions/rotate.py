"""Rotation: the picture is turned about its middle."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.corruptions import draws, warps
from robust.corruptions.pieces import PiecewiseCorruption
from robust.randomness import Randomness

RADIANS = (0.2, 0.4, 0.6, 0.8, 1.0)


class Rotate(PiecewiseCorruption):
    """Turns by 0.2 radians (11.5 degrees) a severity, either way; outside is black."""

    name: ClassVar[str] = "rotate"
    family: ClassVar[str] = "geometry"
    source: ClassVar[str] = "Mu & Gilmer 2019, arXiv 1906.02337"

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Turned images [N,C,H,W]."""
        sides = draws.signs(rng.fork("side"), 1, images).flatten().tolist()
        return warps.affine(images, [warps.rotation(images, side * RADIANS[self.severity - 1]) for side in sides])
