"""Random resizing and padding: every call sees the image at another size and place."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from robust.defences.defence import Preprocessing


class RandomResizePad(Preprocessing):
    """Shrinks each image by a random factor and puts it at a random place on a black canvas of the original size.

    Xie et al. 2018, "Mitigating Adversarial Effects Through Randomization", arXiv 1711.01991, who enlarge 299-pixel
    images to at most 331; here the canvas keeps its size so that any network fits. Factor and place are drawn for
    each image and call; the step is bilinear and differentiable, and broken by averaging over its draws (EOT).
    """

    name = "random-resize-pad"
    family = "preprocessing"
    source = "arXiv 1711.01991"
    random: ClassVar[bool] = True

    smallest: float = Field(default=0.8, gt=0, lt=1, description="smallest size, as a share of the original's")

    def process(self, images: Tensor, draws: np.random.Generator) -> Tensor:
        """The shrunk and padded images, [N,C,H,W]."""
        n = len(images)
        if n == 0:
            return images
        size = draws.uniform(self.smallest, 1.0, n)
        # centre of the shrunk image, in the canvas' coordinates [-1, 1]
        centre = (1 - size)[:, None] * draws.uniform(-1.0, 1.0, (n, 2))
        maps = np.zeros((n, 2, 3))
        maps[:, [0, 1], [0, 1]] = 1 / size[:, None]
        maps[:, :, 2] = -centre / size[:, None]
        grid = affine_grid(torch.as_tensor(maps).to(images), list(images.shape), align_corners=False)
        return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
