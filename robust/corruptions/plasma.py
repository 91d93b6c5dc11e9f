"""Plasma fractals by the diamond-square algorithm, for a batch: the clouds of fog and the ridges of frost."""

from __future__ import annotations

import torch
from torch import Tensor

from robust.corruptions import draws
from robust.randomness import Randomness


def plasma(rng: Randomness, height: int, width: int, decay: float, like: Tensor) -> Tensor:
    """Height maps in [0,1], [N,1,height,width], cut from a periodic map whose side is a power of two.

    Each level sets the middles of squares, then of diamonds, to the mean of their four neighbours plus noise; the
    noise shrinks by decay^2 a level (Fournier, Fussell and Carpenter 1982). Every map is scaled to span [0,1].
    """
    side = 1 << (max(height, width) - 1).bit_length()
    noise = 2 * draws.uniform(rng.fork("plasma"), (side * side,), like) - 1
    field = noise.new_zeros(len(noise), side, side)
    step, wibble, used = side, 1.0, 0
    while step >= 2:
        half, count = step // 2, (side // step) ** 2
        fresh = [noise[:, used + k * count : used + (k + 1) * count] * wibble**2 for k in range(3)]
        fresh = [part.reshape(-1, side // step, side // step) for part in fresh]
        corners = field[:, ::step, ::step]
        down = corners + corners.roll(-1, 1)
        middles = (down + down.roll(-1, 2)) / 4 + fresh[0]
        field[:, half::step, half::step] = middles
        across = corners + corners.roll(-1, 2)
        field[:, ::step, half::step] = (across + middles + middles.roll(1, 1)) / 4 + fresh[1]
        field[:, half::step, ::step] = (down + middles + middles.roll(1, 2)) / 4 + fresh[2]
        step, wibble, used = half, wibble / decay, used + 3 * count
    low, high = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    return ((field - low) / (high - low))[:, None, :height, :width]


def ridges(field: Tensor) -> Tensor:
    """Sharp crests where a field in [0,1] crosses one half: 1 - |2 f - 1|."""
    return 1 - torch.abs(2 * field - 1)
