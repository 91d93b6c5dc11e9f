"""Blurs of image batches: each pixel's sum is taken in one fixed order, so that no batch size shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robust.corruptions.banded import Band


def correlate(images: Tensor, taps: Sequence[float], dim: int) -> Tensor:
    """Correlation of [N,C,H,W] with an odd number of taps along dim -1 or -2; the edge pixel goes on outside."""
    radius, size = len(taps) // 2, images.shape[dim]
    sides = (radius, radius, 0, 0) if dim == -1 else (0, 0, radius, radius)
    padded = F.pad(images, sides, mode="replicate")
    total = padded.narrow(dim, 0, size) * taps[0]
    for k, tap in enumerate(taps[1:], start=1):
        total.add_(padded.narrow(dim, k, size), alpha=tap)
    return total


def gaussian_taps(sigma: float, truncate: float = 4.0) -> list[float]:
    """Normalised Gaussian weights at -r..r, r = floor(truncate * sigma + 1/2)."""
    radius = int(truncate * sigma + 0.5)
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    return [w / sum(weights) for w in weights]


def gaussian_blur(images: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """Gaussian blur of [N,C,H,W]; sigma in pixels, cut at `truncate` standard deviations; edge pixels go on outside."""
    if int(truncate * sigma + 0.5) == 0:
        return images
    down, across = (_gaussian(side, sigma, truncate, images.dtype, images.device) for side in images.shape[-2:])
    return down.rows(across.columns(images))


@lru_cache(maxsize=32)
def _gaussian(side: int, sigma: float, truncate: float, dtype: torch.dtype, device: torch.device) -> Band:
    """The blur of a line of `side` pixels."""
    taps = gaussian_taps(sigma, truncate)
    matrix, rows = np.zeros((side, side)), np.arange(side)
    for k, tap in enumerate(taps):
        np.add.at(matrix, (rows, np.clip(rows + k - len(taps) // 2, 0, side - 1)), tap)
    return Band.of(matrix, torch.empty(0, dtype=dtype, device=device))


def disc_blur(images: Tensor, radius: float) -> Tensor:
    """Mean over the pixels within `radius`; images [N,C,H,W] are mirrored at their edges.

    A disc is a stack of rows. From the narrowest to the widest, a row's sum is that of the last with a pixel more at
    either end, and then it is added wherever the disc has a row of that width: 4 r + 2 additions in place of pi r^2.
    """
    reach = int(radius)
    if reach == 0:
        return images
    height, width = images.shape[-2:]
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    across = padded.shape[-1]
    flat = padded.flatten()  # all rows in one line: quicker to add, and where it runs over a row's end is cut off
    halves = [int(math.sqrt(radius**2 - dy**2)) for dy in range(-reach, reach + 1)]
    inside = len(flat) - 2 * reach
    row = flat.narrow(0, reach, inside).clone()
    total = torch.zeros_like(flat)
    for half in range(max(halves) + 1):
        if half:
            row.add_(flat.narrow(0, reach - half, inside)).add_(flat.narrow(0, reach + half, inside))
        for top in (k for k, there in enumerate(halves) if there == half):
            kept = inside - top * across
            total.narrow(0, 0, kept).add_(row.narrow(0, top * across, kept))
    pixels = sum(2 * half + 1 for half in halves)
    return total.view(padded.shape)[..., :height, :width] / pixels


def motion_blur(
    images: Tensor, radius: int, sigma: float, angles: Sequence[float], outside: str = "replicate"
) -> Tensor:
    """Half a Gaussian of 2 radius + 1 taps along a line, at an angle in degrees of its own for each of [N,C,H,W].

    `outside` is the padding mode of torch: by default the edge pixel goes on.
    """
    number, channels, height, width = images.shape
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(2 * radius + 1)]
    scale = sum(weights)
    trails = [_trail(angle, len(weights), height, width) for angle in angles]
    downs, rights = ([step[axis] for trail in trails for step in trail] for axis in (0, 1))
    top, left = max(0, -min(downs)), max(0, -min(rights))
    padded = F.pad(images, (left, max(0, *rights), top, max(0, *downs)), mode=outside)
    # rows of all channels in one line: a shift of the picture is a shift of the line, and what runs over a row's end
    # stands in columns that are cut off
    lines = padded.transpose(1, 2).flatten(1)
    across = padded.shape[-1]
    blurred = images.new_zeros(number, height * channels * across)
    inside = blurred.shape[1] - (across - width)
    for out, line, trail in zip(blurred.narrow(1, 0, inside), lines, trails):
        for (down, right), weight in zip(trail, weights):
            start = (top + down) * channels * across + left + right
            out.add_(line.narrow(0, start, inside), alpha=weight / scale)
    return blurred.view(number, height, channels, across)[..., :width].transpose(1, 2)


def _trail(angle: float, length: int, height: int, width: int) -> list[tuple[int, int]]:
    """The pixels (down, right) that a motion at an angle in degrees passes, until it has left the image."""
    sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    steps = ((math.ceil(k * sin - 0.5), math.ceil(k * cos - 0.5)) for k in range(length))
    return list(takewhile(lambda step: abs(step[0]) < height and abs(step[1]) < width, steps))
