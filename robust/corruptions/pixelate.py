"""Pixelation: too few pixels, enlarged."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from robust.corruptions.banded import Band
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
        averages, shown = _rows(height, int(height * share), images.dtype, images.device)
        averaged = torch.zeros_like(images[..., : len(averages[0][0]), :])
        for rows, part in averages:
            averaged.addcmul_(images.index_select(-2, rows), part)
        coarse = _columns(width, int(width * share), images.dtype, images.device).columns(averaged)
        return coarse.index_select(-2, shown)


def _runs(side: int, count: int) -> tuple[list[int], list[int]]:
    """Which of `count` coarse pixels each of `side` pixels shows, and the edges of the runs that are averaged."""
    return [int((k + 0.5) * count / side) for k in range(side)], [int(k * side / count + 0.5) for k in range(count + 1)]


@lru_cache(maxsize=16)
def _rows(
    side: int, count: int, dtype: torch.dtype, device: torch.device
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """The k-th rows of all runs [count] with their weights [count,1], for each k; and the coarse row shown by each."""
    shown, edges = _runs(side, count)
    lengths = [b - a for a, b in pairwise(edges)]
    averages = []
    for k in range(max(lengths)):
        rows = torch.tensor([min(edge + k, side - 1) for edge in edges[:-1]], device=device)
        parts = [(k < length) / length for length in lengths]
        averages.append((rows, torch.tensor(parts, dtype=dtype, device=device).view(-1, 1)))
    return averages, torch.tensor(shown, device=device)


@lru_cache(maxsize=16)
def _columns(side: int, count: int, dtype: torch.dtype, device: torch.device) -> Band:
    """Means over runs of neighbouring columns, repeated over the columns that show them."""
    shown, edges = _runs(side, count)
    matrix = np.zeros((side, side))
    for k, run in enumerate(shown):
        matrix[k, edges[run] : edges[run + 1]] = 1 / (edges[run + 1] - edges[run])
    return Band.of(matrix, torch.empty(0, dtype=dtype, device=device))
