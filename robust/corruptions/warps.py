"""Images read at moved positions: bilinear, by a map for each sample, computed element by element."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

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
    """Bilinear samples of [N,C,H,W] at x, y [N,H,W] in pixels; `outside` is grid_sample's padding mode."""
    height, width = images.shape[-2:]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
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
    sides = images.shape[-2:]
    crop = [math.ceil(side / factor) for side in sides]
    top, left = ((side - part) // 2 for side, part in zip(sides, crop))
    size = [max(side, round(part * factor)) for side, part in zip(sides, crop)]
    middle = images[..., top : top + crop[0], left : left + crop[1]]
    large = F.interpolate(middle, size=size, mode="bilinear", align_corners=True)
    top, left = ((big - side) // 2 for big, side in zip(size, sides))
    return large[..., top : top + sides[0], left : left + sides[1]]
