"""Zigzag: a jagged line is drawn across the picture."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from robust.corruptions.lines import Array, segment
from robust.corruptions.pieces import PiecewiseCorruption
from robust.randomness import Randomness

TOOTH = 2.0  # half a tooth's length, and its height, in pixels of 28


class Zigzag(PiecewiseCorruption):
    """Soft white zigzags from left to right, one a severity; MNIST-C's single line is severity 1.

    A line from column 2 to column 25 (of 28), rising or falling by at most 5 rows, with teeth of 2 pixels to either
    side of it.
    """

    name: ClassVar[str] = "zigzag"
    family: ClassVar[str] = "drawing"
    source: ClassVar[str] = "Mu & Gilmer 2019, arXiv 1906.02337"

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] with lines on them."""
        starts = rng.fork("start").integers(27, (5,))[:, : self.severity].tolist()
        rises = (rng.fork("rise").integers(10, (5,)) - 5)[:, : self.severity].tolist()
        height, width = images.shape[-2:]
        drawn = [
            np.sum([_zigzag(height, width, start, rise) for start, rise in zip(*lines)], axis=0)
            for lines in zip(starts, rises)
        ]
        return images + torch.as_tensor(np.stack(drawn)).to(images)[:, None]


def _zigzag(height: int, width: int, start: int, rise: int) -> Array:
    """One zigzag [height,width] from (2, start) to (25, start + rise), in pixels of 28."""
    slope = np.arctan2(rise, 23)
    length = 23 / np.cos(slope)
    along = np.array([0, *np.arange(TOOTH, length, 2 * TOOTH), length])
    across = TOOTH * np.array([0, *((-1.0) ** np.arange(len(along) - 2)), 0])
    columns = (2 + along * np.cos(slope) - across * np.sin(slope)) * width / 28
    rows = (start + along * np.sin(slope) + across * np.cos(slope)) * height / 28
    corners = list(zip(columns, rows))
    drawn = [segment(height, width, a, b) for a, b in pairwise(corners)]
    return np.clip(np.sum(drawn, axis=0), 0, 1)
