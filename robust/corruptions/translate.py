"""Translation: the picture is moved by whole pixels."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robust.corruptions import draws
from robust.corruptions.pieces import PiecewiseCorruption
from robust.randomness import Randomness


class Translate(PiecewiseCorruption):
    """Moves the picture by a pixel per severity and 28 pixels of side, in both directions; one pixel on request.

    MNIST-C moves by 1 to 5 pixels of 28, left or right and up or down; larger images move by the same share. A move of
    one pixel (`pixels: 1`) is the test of Azulay & Weiss 2019 (arXiv 1805.12177).
    """

    name: ClassVar[str] = "translate"
    family: ClassVar[str] = "geometry"
    source: ClassVar[str] = "Mu & Gilmer 2019, arXiv 1906.02337"

    pixels: int | None = Field(default=None, ge=0, description="pixels along each axis; overrides the severity")
    outside: Literal["black", "edge"] = Field(default="black", description="what moves in: black, or the edge repeated")

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Moved images [N,C,H,W]."""
        side = min(images.shape[-2:])
        pixels = max(1, round(self.severity * side / 28)) if self.pixels is None else self.pixels
        if pixels >= side:
            raise ValueError(f"translate: pixels is {pixels}, but the images are only {side} pixels wide; ask for less")
        mode = "constant" if self.outside == "black" else "replicate"
        padded = F.pad(images, (pixels,) * 4, mode=mode)
        moves = (pixels * draws.signs(rng.fork("direction"), 2, images)).long().tolist()
        height, width = images.shape[-2:]
        return torch.stack(
            [
                image[:, pixels + down : pixels + down + height, pixels + right : pixels + right + width]
                for image, (down, right) in zip(padded, moves)
            ]
        )
