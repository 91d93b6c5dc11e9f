"""Impulse noise: salt and pepper."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.corruptions import draws
from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness


class ImpulseNoise(PublishedCorruption):
    """Salt and pepper: a share of all values becomes 0 or 1, each with half the share; channels fall independently."""

    name: ClassVar[str] = "impulse-noise"
    family: ClassVar[str] = "noise"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    cifar: ClassVar[tuple[float, ...]] = (0.01, 0.02, 0.03, 0.05, 0.07)  # share of values
    imagenet: ClassVar[tuple[float, ...]] = (0.03, 0.06, 0.09, 0.17, 0.27)

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] with lost values."""
        share = self.constants(images) * draws.LEVELS
        drawn = draws.levels(rng.fork("impulses"), tuple(images.shape[1:]), images).to(images.dtype)
        sound = drawn.clone().ge_(share)
        lit = drawn.ge_(share / 2)  # 1 where the value is sound or salt, 0 where it is pepper
        return images.minimum(lit).maximum(lit.sub_(sound))
