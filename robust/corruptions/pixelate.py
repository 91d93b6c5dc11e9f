"""Pixelation: too few pixels, enlarged."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness


class Pixelate(PublishedCorruption):
    """Averaged down to a share of the side, and enlarged again by repeating pixels."""

    name: ClassVar[str] = "pixelate"
    family: ClassVar[str] = "digital"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    cifar: ClassVar[tuple[float, ...]] = (0.95, 0.9, 0.85, 0.75, 0.65)  # share of the side
    imagenet: ClassVar[tuple[float, ...]] = (0.6, 0.5, 0.4, 0.3, 0.25)

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Coarse images [N,C,H,W]."""
        share, (height, width) = self.constants(images), images.shape[-2:]
        for dim in (-2, -1):
            images = _averaged(images, int(images.shape[dim] * share), dim)
        for dim, side in ((-1, width), (-2, height)):
            images = _repeated(images, side, dim)
        return images


def _averaged(images: Tensor, count: int, dim: int) -> Tensor:
    """Means over `count` runs of neighbouring pixels along dim, each run as long as rounding allows."""
    side = images.shape[dim]
    edges = [int(k * side / count + 0.5) for k in range(count + 1)]
    lengths = [b - a for a, b in pairwise(edges)]
    shape = [count, 1] if dim == -2 else [count]
    total = torch.zeros_like(images.narrow(dim, 0, count))
    for k in range(max(lengths)):
        taken = images.new_tensor([(k < length) / length for length in lengths]).view(shape)
        rows = torch.tensor([min(edge + k, side - 1) for edge in edges[:-1]], device=images.device)
        total += images.index_select(dim, rows) * taken
    return total


def _repeated(images: Tensor, side: int, dim: int) -> Tensor:
    """The nearest of the few pixels for each of `side` along dim."""
    count = images.shape[dim]
    rows = [int((k + 0.5) * count / side) for k in range(side)]
    return images.index_select(dim, torch.tensor(rows, device=images.device))
