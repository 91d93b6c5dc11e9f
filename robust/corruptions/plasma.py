"""Plasma fractals by the diamond-square algorithm, for a batch: the clouds of fog and the ridges of frost."""

from __future__ import annotations

import torch
from torch import Tensor

from robust.corruptions import draws
from robust.randomness import Randomness

PLASMA_PIECE = 2**21  # numbers of images worked on at a time: coarse levels are so small that more images cost nothing


def plasma(rng: Randomness, height: int, width: int, decay: float, like: Tensor) -> Tensor:
    """Height maps in [0,1], [N,1,height,width], cut from a periodic map whose side is a power of two.

    Each level sets the middles of squares, then of diamonds, to the mean of their four neighbours plus noise; the
    noise shrinks by decay^2 a level (Fournier, Fussell and Carpenter 1982). Every map is scaled to span [0,1].
    """
    side = 1 << (max(height, width) - 1).bit_length()
    noise = draws.uniform(rng.fork("plasma"), (side * side,), like).mul_(2).sub_(1)
    corners, size, wibble, used = noise.new_zeros(len(noise), 1, 1), 1, 1.0, 0
    while size < side:
        count = size * size
        fresh = noise[:, used : used + 3 * count].mul(wibble**2).view(-1, 3, size, size).unbind(1)
        down = corners + corners.roll(-1, 1)
        middles = torch.add(fresh[0], down + down.roll(-1, 2), alpha=0.25)
        across = corners + corners.roll(-1, 2)
        right = torch.add(fresh[1], across.add_(middles).add_(middles.roll(1, 1)), alpha=0.25)
        below = torch.add(fresh[2], down.add_(middles).add_(middles.roll(1, 2)), alpha=0.25)
        corners = _woven(corners, right, below, middles)
        size, wibble, used = 2 * size, wibble / decay, used + 3 * count
    low, high = corners.amin((1, 2), keepdim=True), corners.amax((1, 2), keepdim=True)
    return ((corners[:, :height, :width] - low) / (high - low))[:, None]


def _woven(corners: Tensor, right: Tensor, below: Tensor, middles: Tensor) -> Tensor:
    """The map [N,2s,2s] of which four maps [N,s,s] are the even and odd rows and columns."""
    number, size, _ = corners.shape
    found = corners.new_empty(number, size, 2, size, 2)
    pairs = torch.view_as_complex(found)  # two floats as one complex number: the quickest way to interleave them
    torch.complex(corners, right, out=pairs[:, :, 0])
    torch.complex(below, middles, out=pairs[:, :, 1])
    return found.view(number, 2 * size, 2 * size)


def ridges(field: Tensor) -> Tensor:
    """Sharp crests where a field in [0,1] crosses one half: 1 - |2 f - 1|."""
    return 1 - torch.abs(2 * field - 1)
