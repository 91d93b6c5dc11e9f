"""Additive Gaussian noise, clamped to the box."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.corruptions import draws
from robust.corruptions.pieces import PublishedCorruption
from robust.method import Exact
from robust.randomness import Randomness


class GaussianNoise(PublishedCorruption):
    """Gaussian pixel noise: clip(x + sigma * N(0, I), 0, 1); sigma from the severity, or given ("100/255").

    A given sigma draws exact normals, because certificates and attacks of other methods are compared with it; the
    severities draw the 65,536 quantiles of `draws.normal`.
    """

    name: ClassVar[str] = "gaussian-noise"
    family: ClassVar[str] = "noise"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    cifar: ClassVar[tuple[float, ...]] = (0.04, 0.06, 0.08, 0.09, 0.10)
    imagenet: ClassVar[tuple[float, ...]] = (0.08, 0.12, 0.18, 0.26, 0.38)

    sigma: Exact | None = Field(default=None, description="standard deviation in [0,1] units; overrides the severity")

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Noisy images [N,C,H,W]."""
        noise, shape = rng.fork("noise"), tuple(images.shape[1:])
        if self.sigma is not None:
            return images + float(self.sigma) * noise.normal(shape, like=images)
        return images.add(draws.normal(noise, shape, images), alpha=self.constants(images))
