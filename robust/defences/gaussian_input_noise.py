"""Gaussian input noise: fresh noise on every call, so that no two gradients agree."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robust.defences.defence import Preprocessing


class GaussianInputNoise(Preprocessing):
    """Adds N(0, sigma^2) to every pixel on every call and clips to the box.

    The randomised input of Cohen et al. 2019, arXiv 1902.02918, without the vote that makes it a certificate; as a
    defence by itself it is differentiable and random, and attacked by averaging over its draws (EOT).
    """

    name = "gaussian-input-noise"
    family = "preprocessing"
    source = "arXiv 1902.02918"
    random: ClassVar[bool] = True

    sigma: float = Field(default=0.1, gt=0, description="standard deviation, in [0,1] image units")

    def process(self, images: Tensor, draws: np.random.Generator) -> Tensor:
        """The noisy images, [N,C,H,W]."""
        noise = torch.as_tensor(draws.standard_normal(tuple(images.shape)))
        return (images + self.sigma * noise.to(images)).clamp(0.0, 1.0)
