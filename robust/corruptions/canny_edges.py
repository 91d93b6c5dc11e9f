"""Canny edges: the picture is replaced by its outlines."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from robust.corruptions.colour import luminance
from robust.corruptions.filters import correlate, gaussian_blur
from robust.corruptions.pieces import PiecewiseCorruption
from robust.randomness import Randomness

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
LOW, HIGH = 0.1, 0.2  # gradient thresholds for images in [0,1], where a step of height 1 has gradient 1/2 a pixel


class CannyEdges(PiecewiseCorruption):
    """Fades the picture into its edges, white on black; MNIST-C's edges alone are severity 5.

    Canny 1986: Gaussian of 1 pixel, Sobel gradients, pixels that are largest across the edge, and hysteresis: those
    above 0.2, and those above 0.1 that touch one that is kept. Colour images give the edges of their luma.
    """

    name: ClassVar[str] = "canny-edges"
    family: ClassVar[str] = "drawing"
    source: ClassVar[str] = "Mu & Gilmer 2019, arXiv 1906.02337"

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] faded into edges."""
        share = SHARES[self.severity - 1]
        return (1 - share) * images + share * edges(luminance(images)).to(images.dtype)


def edges(grey: Tensor) -> Tensor:
    """Edges of grey images, bool [N,1,H,W]."""
    smooth = gaussian_blur(grey, 1.0)
    right = correlate(correlate(smooth, (-1, 0, 1), -1), (0.25, 0.5, 0.25), -2)
    down = correlate(correlate(smooth, (-1, 0, 1), -2), (0.25, 0.5, 0.25), -1)
    steepness = (right * right + down * down).sqrt()
    crest = steepness > 0
    for (dy, dx), across in _directions(right, down):
        ahead, behind = (_moved(steepness, side * dy, side * dx) for side in (1, -1))
        crest &= ~across | ((steepness >= ahead) & (steepness > behind))
    weak = crest & (steepness > LOW)
    return _grown(crest & (steepness > HIGH), weak)


def _directions(right: Tensor, down: Tensor) -> list[tuple[tuple[int, int], Tensor]]:
    """The four directions a gradient can be rounded to, and where it has which."""
    flat, tall = down.abs() < 0.41421356 * right.abs(), right.abs() <= 0.41421356 * down.abs()  # tan 22.5 degrees
    rising = right * down > 0
    return [((0, 1), flat), ((1, 0), tall), ((1, 1), ~flat & ~tall & rising), ((1, -1), ~flat & ~tall & ~rising)]


def _moved(field: Tensor, dy: int, dx: int) -> Tensor:
    """field[y + dy, x + dx], 0 outside."""
    height, width = field.shape[-2:]
    return F.pad(field, (1, 1, 1, 1))[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]


def _grown(kept: Tensor, weak: Tensor) -> Tensor:
    """All weak pixels joined to a kept one; as many steps as the longest weak chain needs, and more change nothing."""
    while True:
        touched = F.max_pool2d(kept.float(), 3, stride=1, padding=1) > 0
        grown = kept | (touched & weak)
        if torch.equal(grown, kept):
            return kept
        kept = grown
