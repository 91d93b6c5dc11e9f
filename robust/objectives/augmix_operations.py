"""The image operations of AugMix, on batches in [0,1] with a level for each image: torch throughout, no file format.

Geometric operations sample bilinearly with zeros outside; a level of 1 is the strongest (severity 10 in the paper).
None of them overlaps with the corruptions of common benchmarks (no noise, blur, contrast or brightness), as the paper
asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

Operation = Callable[[Tensor, Tensor], Tensor]  # images [N,C,H,W], signed levels [N] in [-1,1] -> images


def autocontrast(images: Tensor, level: Tensor) -> Tensor:
    """Each channel stretched to [0,1]; constant channels stay."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp_min(1e-6), images)


def equalize(images: Tensor, level: Tensor) -> Tensor:
    """Each channel through its own distribution function, so that its values spread evenly; constant channels stay."""
    flat = images.flatten(2)
    ordered = flat.sort(2).values
    below = torch.searchsorted(ordered, flat, right=True).to(images.dtype)
    lowest = torch.searchsorted(ordered, ordered[..., :1].contiguous(), right=True).to(images.dtype)
    spread = flat.shape[2] - lowest
    even = torch.where(spread > 0, (below - lowest) / spread.clamp_min(1.0), flat)
    return even.view_as(images)


def posterize(images: Tensor, level: Tensor) -> Tensor:
    """Only the 4 - round(4 |level|) leading bits kept, at least one, of 8-bit values."""
    bits = (4 - (4 * level.abs()).round()).clamp_min(1.0)
    step = _image(2.0 ** (8 - bits), images)
    return ((images * 255 / step + 1e-4).floor() * step / 255).clamp(0, 1)


def solarize(images: Tensor, level: Tensor) -> Tensor:
    """Values above 1 - |level| inverted."""
    return torch.where(images >= _image(1 - level.abs(), images), 1 - images, images)


def rotate(images: Tensor, level: Tensor) -> Tensor:
    """By up to 30 degrees."""
    angle = level * math.radians(30)
    return _warp(images, angle.cos(), -angle.sin(), angle.sin(), angle.cos())


def shear_x(images: Tensor, level: Tensor) -> Tensor:
    """Rows shifted by up to 0.3 of their height."""
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _warp(images, one, 0.3 * level, zero, one)


def shear_y(images: Tensor, level: Tensor) -> Tensor:
    """Columns shifted by up to 0.3 of their width."""
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _warp(images, one, zero, 0.3 * level, one)


def translate_x(images: Tensor, level: Tensor) -> Tensor:
    """By up to a third of the width."""
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _warp(images, one, zero, zero, one, across=2 / 3 * level)


def translate_y(images: Tensor, level: Tensor) -> Tensor:
    """By up to a third of the height."""
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _warp(images, one, zero, zero, one, down=2 / 3 * level)


OPERATIONS: tuple[Operation, ...] = (
    autocontrast, equalize, posterize, rotate, solarize, shear_x, shear_y, translate_x, translate_y,
)  # fmt: skip


def apply_each(images: Tensor, which: Tensor, level: Tensor) -> Tensor:
    """The operation number `which` [N] on each image, at its own level [N]."""
    changed = images.clone()
    for number, operation in enumerate(OPERATIONS):
        rows = (which == number).nonzero().flatten()
        if len(rows):
            changed[rows] = operation(images[rows], level[rows])
    return changed


def _warp(
    images: Tensor,
    xx: Tensor,
    xy: Tensor,
    yx: Tensor,
    yy: Tensor,
    across: Tensor | None = None,
    down: Tensor | None = None,
) -> Tensor:
    zero = torch.zeros_like(xx)
    rows = [torch.stack([xx, xy, zero if across is None else across], 1)]
    rows.append(torch.stack([yx, yy, zero if down is None else down], 1))
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _image(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.dtype).view(-1, 1, 1, 1)
