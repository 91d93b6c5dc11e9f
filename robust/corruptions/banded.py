"""Linear maps along one axis of images whose outputs each see a few neighbours: blurs, enlargements, averages.

Such a map is a matrix with a narrow band. It is cut into tiles of 32 outputs, and a tile is one product of small dense
matrices for every plane [H,W] of the batch. Planes are multiplied as a batch of at least two, since the library treats
a single matrix in another way: so the bytes of a plane do not depend on how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TILE = 32


@dataclass(frozen=True)
class Tile:
    """Some outputs as `weights` [outputs, last - first] times the inputs [first, last)."""

    first: int
    last: int
    weights: Tensor


@dataclass(frozen=True)
class Band:
    """A matrix [outputs, inputs] in tiles."""

    tiles: tuple[Tile, ...]

    @classmethod
    def of(cls, matrix: NDArray[np.float64], like: Tensor) -> Band:
        """The band of a matrix [outputs, inputs], in the dtype and on the device of `like`."""
        tiles = []
        for start in range(0, len(matrix), TILE):
            rows = matrix[start : start + TILE]
            used = np.flatnonzero(rows.any(axis=0))
            first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
            weights = torch.as_tensor(np.ascontiguousarray(rows[:, first:last])).to(like)
            tiles.append(Tile(first, last, weights))
        return cls(tuple(tiles))

    def rows(self, images: Tensor) -> Tensor:
        """The map along the height: [N,C,H,W] becomes [N,C,outputs,W]."""
        planes = _planes(images)
        found = [
            torch.bmm(tile.weights.expand(len(planes), -1, -1), planes[:, tile.first : tile.last])
            for tile in self.tiles
        ]
        return _images(_joined(found, dim=1), images)

    def columns(self, images: Tensor) -> Tensor:
        """The map along the width: [N,C,H,W] becomes [N,C,H,outputs]."""
        planes = _planes(images)
        found = [
            torch.bmm(planes[:, :, tile.first : tile.last], tile.weights.T.expand(len(planes), -1, -1))
            for tile in self.tiles
        ]
        return _images(_joined(found, dim=2), images)


def _planes(images: Tensor) -> Tensor:
    """All [H,W] of [N,C,H,W]; one alone is doubled."""
    planes = images.reshape(-1, *images.shape[-2:])
    return planes if len(planes) > 1 else planes.expand(2, -1, -1)


def _joined(tiles: list[Tensor], dim: int) -> Tensor:
    return tiles[0] if len(tiles) == 1 else torch.cat(tiles, dim=dim)


def _images(planes: Tensor, like: Tensor) -> Tensor:
    """Planes as images [N,C,H,W] again, without a double."""
    number, channels = like.shape[:2]
    return planes[: number * channels].view(number, channels, *planes.shape[-2:])
