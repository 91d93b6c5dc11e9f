"""Images read at moved positions: bilinear, by a map for each sample, computed element by element."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robust.corruptions.banded import Band

Affine = tuple[float, float, float, float, float, float]  # a, b, c, d, e, f: x' = a x + b y + c, y' = d x + e y + f


def positions(images: Tensor, maps: list[Affine]) -> tuple[Tensor, Tensor]:
    """Where each output pixel of [N,C,H,W] is read: x' and y' [N,H,W] in pixels, each sample by its own map."""
    x, y = pixel_grid(images)
    a, b, c, d, e, f = (images.new_tensor(column).view(-1, 1, 1) for column in zip(*maps))
    return x * a + y * b + c, x * d + y * e + f


def pixel_grid(images: Tensor) -> tuple[Tensor, Tensor]:
    """Column numbers [1,1,W] and row numbers [1,H,1]."""
    height, width = images.shape[-2:]
    x, y = (torch.arange(n, dtype=images.dtype, device=images.device) for n in (width, height))
    return x.view(1, 1, -1), y.view(1, -1, 1)


def read_at(images: Tensor, x: Tensor, y: Tensor, outside: str = "zeros") -> Tensor:
    """Bilinear samples of [N,C,H,W] at x, y in pixels, which broadcast to [N,H,W].

    `outside` is grid_sample's padding mode.
    """
    height, width = images.shape[-2:]
    grid = images.new_empty(len(images), height, width, 2)
    for k, (line, side) in enumerate(((x, width), (y, height))):
        grid[..., k] = (2 * line + 1).div_(side).sub_(1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def affine(images: Tensor, maps: list[Affine], outside: str = "zeros") -> Tensor:
    """Each of [N,C,H,W] read through its own map."""
    return read_at(images, *positions(images, maps), outside)


def about_centre(images: Tensor, a: float, b: float, d: float, e: float) -> Affine:
    """The map (a b; d e) that leaves the middle of the image where it is."""
    x, y = (images.shape[-1] - 1) / 2, (images.shape[-2] - 1) / 2
    return a, b, x - a * x - b * y, d, e, y - d * x - e * y


def rotation(images: Tensor, radians: float) -> Affine:
    """A rotation about the middle."""
    sin, cos = math.sin(radians), math.cos(radians)
    return about_centre(images, cos, -sin, sin, cos)


def clipped_zoom(images: Tensor, factor: float) -> Tensor:
    """The middle of [N,C,H,W], enlarged by a factor >= 1 to at least the old size and cut back to it."""
    down, across = (_zoomed(side, factor, images.dtype, images.device) for side in images.shape[-2:])
    return down.rows(across.columns(images))


@lru_cache(maxsize=128)
def _zoomed(side: int, factor: float, dtype: torch.dtype, device: torch.device) -> Band:
    """The enlargement of a line of `side` pixels: bilinear, end pixels kept on the ends."""
    part = math.ceil(side / factor)
    large = max(side, round(part * factor))
    at = (np.arange(side) + (large - side) // 2) * ((part - 1) / max(1, large - 1))
    low = np.minimum(at.astype(np.int64), max(0, part - 2))
    matrix, rows, first = np.zeros((side, side)), np.arange(side), (side - part) // 2
    matrix[rows, first + low] = 1 - (at - low)
    matrix[rows, np.minimum(first + low + 1, side - 1)] += at - low
    return Band.of(matrix, torch.empty(0, dtype=dtype, device=device))
