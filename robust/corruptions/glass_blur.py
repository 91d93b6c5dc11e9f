"""Glass blur: seen through frosted glass."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robust.corruptions import draws, filters
from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness


class GlassBlur(PublishedCorruption):
    """Neighbouring pixels change places between two slight Gaussian blurs.

    In every round each pixel (those near the edge aside) swaps with one drawn from the offsets [-d, d) in both
    directions. The published code visits pixels one by one in reading order; here pixels 2d + 1 apart, whose swaps
    cannot touch each other, swap together, which is the same set of swaps in another order.
    """

    name: ClassVar[str] = "glass-blur"
    family: ClassVar[str] = "blur"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    # sigma and farthest offset d in pixels, rounds
    cifar: ClassVar[tuple[tuple[float, int, int], ...]] = (
        (0.05, 1, 1),
        (0.25, 1, 1),
        (0.4, 1, 1),
        (0.25, 1, 2),
        (0.4, 1, 2),
    )
    imagenet: ClassVar[tuple[tuple[float, int, int], ...]] = (
        (0.7, 1, 2),
        (0.9, 2, 1),
        (1, 2, 3),
        (1.1, 3, 2),
        (1.5, 4, 2),
    )

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] with shuffled neighbourhoods."""
        sigma, farthest, rounds = self.constants(images)
        blurred = filters.gaussian_blur(images, sigma)
        order = self._order(images, rng, farthest, rounds)
        shuffled = blurred.flatten(2).gather(2, order[:, None].expand(-1, images.shape[1], -1))
        return filters.gaussian_blur(shuffled.view(images.shape), sigma)

    @staticmethod
    def _order(images: Tensor, rng: Randomness, farthest: int, rounds: int) -> Tensor:
        """Which pixel stands where after all swaps: indices into the flattened image, [N, H*W]."""
        height, width = images.shape[-2:]
        numbers = torch.arange(height * width, device=images.device)
        order, grid = numbers.repeat(len(images), 1), numbers.view(height, width)
        for turn in range(rounds):
            drawn = [draws.levels(rng.fork(axis, turn), (height * width,), images) for axis in ("down", "right")]
            # 16 random bits times the number of offsets, the high part: uniform but for one part in 65,536
            down, right = (((part.long() * (2 * farthest)) >> 16) - farthest for part in drawn)
            partner = numbers + down * width + right
            for group in _groups(grid, farthest):
                theirs = partner[:, group]
                mine = order[:, group]
                order[:, group] = order.gather(1, theirs)
                order.scatter_(1, theirs, mine)
        return order


def _groups(grid: Tensor, farthest: int) -> list[Tensor]:
    """Pixels whose swaps are independent of each other, group by group: every (2d+1)-th in both directions."""
    apart, height, width = 2 * farthest + 1, *grid.shape
    return [
        grid[top : height - farthest + 1 : apart, left : width - farthest + 1 : apart].flatten()
        for top in range(farthest, farthest + apart)
        for left in range(farthest, farthest + apart)
    ]
