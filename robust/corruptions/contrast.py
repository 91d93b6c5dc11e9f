"""Contrast: less of it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness


class Contrast(PublishedCorruption):
    """c x + (1 - c) mean, with the mean of each channel of each image."""

    name: ClassVar[str] = "contrast"
    family: ClassVar[str] = "light"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    cifar: ClassVar[tuple[float, ...]] = (0.75, 0.5, 0.4, 0.3, 0.15)
    imagenet: ClassVar[tuple[float, ...]] = (0.4, 0.3, 0.2, 0.1, 0.05)

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Flatter images [N,C,H,W]."""
        # summed in float64: the order of summation, which depends on the batch, cannot show after rounding
        mean, share = images.mean((2, 3), keepdim=True, dtype=torch.float64), self.constants(images)
        return torch.add((mean * (1 - share)).to(images.dtype), images, alpha=share)
