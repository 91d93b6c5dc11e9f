"""Shot noise: each pixel counts photons."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from robust.corruptions import draws
from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness

QUANTILE_BITS = 12


class ShotNoise(PublishedCorruption):
    """Poisson noise: Poisson(c x) / c, the photon counts of a camera in little light.

    The counts are quantiles of the exact distribution, looked up by the pixel's 8-bit level (the light) and 12 random
    bits; float images are rounded to 8 bits for the light alone.
    """

    name: ClassVar[str] = "shot-noise"
    family: ClassVar[str] = "noise"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    cifar: ClassVar[tuple[int, ...]] = (500, 250, 100, 75, 50)  # photons of a white pixel
    imagenet: ClassVar[tuple[int, ...]] = (60, 25, 12, 5, 3)

    piece: ClassVar[int] = 2**20  # six images of 224 px: one look-up table serves them

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Counts over the counts of white, [N,C,H,W]."""
        return photons(images, rng.fork("photons"), self.constants(images))


def photons(images: Tensor, rng: Randomness, white: int) -> Tensor:
    """Poisson(white x) / white for images [N,C,H,W]."""
    chance = draws.levels(rng, tuple(images.shape[1:]), images).bitwise_right_shift_(16 - QUANTILE_BITS)
    index = images.mul(255).round_().mul_(2**QUANTILE_BITS).to(torch.int32).add_(chance)
    return _table(white).to(images.device).index_select(0, index.flatten()).view(images.shape).to(images.dtype)


@lru_cache(maxsize=4)
def _table(white: int) -> Tensor:
    """Poisson quantiles over `white` for 256 levels of light and 4,096 equal shares of probability, flattened."""
    counts = np.arange(int(stats.poisson.isf(1e-9, white)) + 1)
    shares = (np.arange(2**QUANTILE_BITS) + 0.5) / 2**QUANTILE_BITS
    light = np.arange(256)[:, None] / 255 * white
    found = [np.searchsorted(below, shares) for below in stats.poisson.cdf(counts, light)]
    return torch.as_tensor(np.stack(found) / white, dtype=torch.float32).flatten()
