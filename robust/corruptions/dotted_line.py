"""Dotted line: a dotted line is drawn across the picture."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from robust.corruptions.lines import segment
from robust.corruptions.pieces import PiecewiseCorruption
from robust.randomness import Randomness


class DottedLine(PiecewiseCorruption):
    """Soft white dotted lines from the left edge to the right, one a severity; MNIST-C's single line is severity 1.

    Both ends lie at random heights; dots and gaps are 2 pixels of 28 wide.
    """

    name: ClassVar[str] = "dotted-line"
    family: ClassVar[str] = "drawing"
    source: ClassVar[str] = "Mu & Gilmer 2019, arXiv 1906.02337"

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] with lines on them."""
        height, width = images.shape[-2:]
        dots = (np.arange(width) * 14 // width) % 2
        ends = rng.fork("ends").integers(27, (5, 2))[:, : self.severity].tolist()  # more severe: the same, and more
        drawn = [
            sum(segment(height, width, (0, r0 * height / 28), (width - 1, r1 * height / 28)) for r0, r1 in lines)
            for lines in ends
        ]
        return images + torch.as_tensor(np.stack(drawn) * dots).to(images)[:, None]
