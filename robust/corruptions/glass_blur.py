"""Glass blur: seen through frosted glass."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
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
        firsts = torch.arange(images.shape[0] * images.shape[1], device=images.device) * order.shape[1]
        source = firsts.view(*images.shape[:2], 1) + torch.from_numpy(order).to(images.device)[:, None]
        return filters.gaussian_blur(blurred.flatten().index_select(0, source.flatten()).view(images.shape), sigma)

    @staticmethod
    def _order(images: Tensor, rng: Randomness, farthest: int, rounds: int) -> NDArray[np.int64]:
        """Which pixel stands where after all swaps: indices into the flattened image, [N, H*W]."""
        number, (height, width) = len(images), images.shape[-2:]
        places = np.arange(number * height * width).reshape(number, height, width)
        order = places.flatten()  # of the pixels of all images in one line
        for turn in range(rounds):
            drawn = [draws.levels(rng.fork(axis, turn), (height, width), images) for axis in ("down", "right")]
            # 16 random bits times the number of offsets, the high part: uniform but for one part in 65,536
            down, right = (part.mul_(2 * farthest).bitwise_right_shift_(16).cpu().numpy() - farthest for part in drawn)
            partners = places + (down * width + right)
            for group in _groups(height, width, farthest):
                mine, theirs = places[group].flatten(), partners[group].flatten()
                order[mine], order[theirs] = order[theirs], order[mine]
        return order.reshape(number, -1) % (height * width)


def _groups(height: int, width: int, farthest: int) -> list[tuple[slice, slice, slice]]:
    """Pixels whose swaps are independent of each other, group by group: every (2d+1)-th in both directions."""
    apart = 2 * farthest + 1
    down, across = (
        [slice(first, side - farthest + 1, apart) for first in range(farthest, farthest + apart)]
        for side in (height, width)
    )
    return [(slice(None), top, left) for top in down for left in across]
