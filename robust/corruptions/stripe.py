"""Stripe: the picture keeps its middle, and its sides are inverted."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robust.corruptions.pieces import PiecewiseCorruption
from robust.randomness import Randomness

SHARES = (1 / 12, 1 / 6, 1 / 4, 1 / 3, 5 / 12)


class Stripe(PiecewiseCorruption):
    """Inverts (1 - x) a share of the width at both sides: 1/12 a severity; MNIST-C's 1/4 is severity 3."""

    name: ClassVar[str] = "stripe"
    family: ClassVar[str] = "drawing"
    source: ClassVar[str] = "Mu & Gilmer 2019, arXiv 1906.02337"

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] with inverted sides."""
        width = images.shape[-1]
        band = round(width * SHARES[self.severity - 1])
        left, middle, right = images.split([band, width - 2 * band, band], dim=-1)
        return torch.cat([1 - left, middle, 1 - right], dim=-1)
