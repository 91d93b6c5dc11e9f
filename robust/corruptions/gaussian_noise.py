"""Additive Gaussian noise, clamped to the box."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.corruptions.corruption import Corruption
from robust.method import Exact
from robust.randomness import Randomness

# Hendrycks & Dietterich 2019 (arXiv 1903.12261), the 32-pixel constants of CIFAR-10-C
SIGMAS = (0.0, 0.04, 0.06, 0.08, 0.09, 0.10)


class GaussianNoise(Corruption):
    """Gaussian pixel noise: clip(x + sigma * N(0, I), 0, 1); sigma from the severity, or given ("100/255")."""

    name: ClassVar[str] = "gaussian-noise"
    family: ClassVar[str] = "noise"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    sigma: Exact | None = Field(default=None, description="standard deviation in [0,1] units; overrides the severity")

    def apply(self, images: Tensor, rng: Randomness) -> Tensor:
        """Noisy images [N,C,H,W]."""
        sigma = SIGMAS[self.severity] if self.sigma is None else float(self.sigma)
        return (images + sigma * rng.fork("noise").normal(images.shape[1:], like=images)).clamp(0, 1)
