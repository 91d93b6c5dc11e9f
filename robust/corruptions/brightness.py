"""Brightness: more light."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness


class Brightness(PublishedCorruption):
    """Adds c to the V of HSV, so hue and saturation stay: x min(V + c, 1) / V, with V the largest channel."""

    name: ClassVar[str] = "brightness"
    family: ClassVar[str] = "light"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    cifar: ClassVar[tuple[float, ...]] = (0.05, 0.1, 0.15, 0.2, 0.3)
    imagenet: ClassVar[tuple[float, ...]] = (0.1, 0.2, 0.3, 0.4, 0.5)

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Brighter images [N,C,H,W]."""
        return brighter(images, self.constants(images))


def brighter(images: Tensor, amount: float) -> Tensor:
    """[N,C,H,W] with `amount` in [-1,1] added to V; black has no hue and turns grey."""
    value = images.amax(1, keepdim=True)
    wanted = (value + amount).clamp_(0, 1)
    black = value.clone().le_(0).mul_(wanted)
    return torch.addcmul(black, images, wanted / value.clamp(min=1e-12))
