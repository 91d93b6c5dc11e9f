"""Elastic transform: the picture on a sheet of rubber."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from robust.corruptions import draws, filters, warps
from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness


class ElasticTransform(PublishedCorruption):
    """Every pixel is read at x + d(x), d a smooth random field; small images are also sheared by a random affine map.

    d = alpha G_sigma * U(-1, 1) in both directions. Constants are shares of the image's side; those of ImageNet-C in
    the form that Michaelis et al. 2019 (arXiv 1907.07484) gave them for any size. The affine map moves three points,
    a third of the side from the middle, by at most `jitter` in either direction. The picture is mirrored outside.
    """

    name: ClassVar[str] = "elastic-transform"
    family: ClassVar[str] = "digital"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    # alpha, sigma, jitter, as shares of the side
    cifar: ClassVar[tuple[tuple[float, float, float], ...]] = (
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    )
    imagenet: ClassVar[tuple[tuple[float, float, float], ...]] = tuple(
        (250 * share * 0.005, 0.01, 0) for share in (0.05, 0.065, 0.085, 0.1, 0.12)
    )

    piece: ClassVar[int] = 2**20  # six images of 224 px: gathering pixels is a call with much to set up

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Bent images [N,C,H,W]."""
        alpha, sigma, jitter = (share * min(images.shape[-2:]) for share in self.constants(images))
        x, y = warps.positions(images, self._maps(images, rng, jitter)) if jitter else warps.pixel_grid(images)
        if alpha > 0:
            field = draws.uniform(rng.fork("field"), (2, *images.shape[-2:]), images).mul_(2).sub_(1)
            field = filters.gaussian_blur(field, sigma, truncate=3.0).mul_(alpha)
            x, y = x + field[:, 0], y + field[:, 1]
        return warps.read_at(images, x, y, outside="reflection")

    @staticmethod
    def _maps(images: Tensor, rng: Randomness, jitter: float) -> list[warps.Affine]:
        """For each sample the affine map from three moved points back to where they were."""
        side = min(images.shape[-2:])
        middle, arm = np.array([images.shape[-1] // 2, images.shape[-2] // 2]), side // 3
        points = middle + arm * np.array([[1, 1], [1, -1], [-1, -1]], dtype=np.float64)
        moves = jitter * (
            2 * draws.uniform(rng.fork("affine"), (3, 2), torch.empty(0, dtype=torch.float64)).numpy() - 1
        )
        moved = np.concatenate([points + moves, np.ones((len(moves), 3, 1))], axis=2)
        solved = np.linalg.solve(moved, np.broadcast_to(points, (len(moves), 3, 2)))
        return [(*x, *y) for x, y in solved.transpose(0, 2, 1).tolist()]
