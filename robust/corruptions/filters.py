"""Blurs as sums of shifted images: added in one fixed order, so that no batch size or thread count shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


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
    """Gaussian blur of [N,C,H,W]; sigma in pixels, cut at `truncate` standard deviations."""
    if int(truncate * sigma + 0.5) == 0:
        return images
    taps = gaussian_taps(sigma, truncate)
    return correlate(correlate(images, taps, -1), taps, -2)


def disc_blur(images: Tensor, radius: float) -> Tensor:
    """Mean over the pixels within `radius`; images [N,C,H,W] are mirrored at their edges.

    A disc is a stack of rows, and the sum of a row is the difference of two running sums: 2r + 1 subtractions for the
    whole image in place of pi r^2 additions.
    """
    reach = int(radius)
    if reach == 0:
        return images
    height, width = images.shape[-2:]
    running = F.pad(F.pad(images, (reach,) * 4, mode="reflect").cumsum(-1), (1, 0))
    total, pixels = torch.zeros_like(images), 0
    for dy in range(-reach, reach + 1):
        half = int(math.sqrt(radius**2 - dy**2))
        row = running.narrow(-2, dy + reach, height)
        total.add_(row.narrow(-1, reach + half + 1, width)).sub_(row.narrow(-1, reach - half, width))
        pixels += 2 * half + 1
    return total / pixels


def motion_blur(images: Tensor, radius: int, sigma: float, angles: Sequence[float]) -> Tensor:
    """Half a Gaussian of 2 radius + 1 taps along a line, at an angle in degrees of its own for each of [N,C,H,W]."""
    height, width = images.shape[-2:]
    length = 2 * radius + 1
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(length)]
    scale = sum(weights)
    padded = F.pad(images, (length,) * 4, mode="replicate")
    blurred = torch.zeros_like(images)
    for out, source, angle in zip(blurred, padded, angles):
        sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
        for k, weight in enumerate(weights):
            down, right = math.ceil(k * sin - 0.5), math.ceil(k * cos - 0.5)
            if abs(down) >= height or abs(right) >= width:
                break  # the motion has left the image
            top, left = length + down, length + right
            out.add_(source[:, top : top + height, left : left + width], alpha=weight / scale)
    return blurred
