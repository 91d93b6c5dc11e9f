"""Pixels that are decoded from image files when a batch asks for them, and kept while they fit into memory."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robust.datasets.dataset import DatasetError, Pixels
from robust.datasets.images import Colour, decode, fit, to_array

KEPT = 2**30  # bytes of decoded pixels that are kept; a larger set is decoded again every time


@dataclass(frozen=True)
class DecodedFiles:
    """Images decoded on demand, by several threads (Pillow decodes outside the interpreter lock).

    Attributes:
        folder, names: the files, by names relative to the folder.
        size: (H, W).
        colour: three channels or one.
        resize: whether images of another size are fitted to it; else they are refused.
    """

    folder: Path
    names: tuple[str, ...]
    size: tuple[int, int]
    colour: Colour
    resize: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self.names), 3 if self.colour == "colour" else 1, *self.size)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            images = list(pool.map(self._image, rows.tolist()))
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), dtype=np.uint8)

    def at(self, shape: tuple[int, int, int]) -> Pixels:
        """The same images fitted to another (C, H, W), decoded anew from the files."""
        colour: Colour = "colour" if shape[0] == 3 else "grey"
        return kept(DecodedFiles(self.folder, self.names, shape[1:], colour, resize=True))

    def _image(self, row: int) -> np.ndarray:
        path = self.folder / self.names[row]
        image = decode(path, str(path), self.colour)
        height, width = self.size
        if (image.height, image.width) == self.size:
            return to_array(image)
        if not self.resize:
            raise DatasetError(
                f"{path} is {image.height} x {image.width}, the images before it are {height} x {width}; "
                "set dataset.size, which fits all of them to one size"
            )
        return to_array(fit(image, height, width))


class KeptPixels:
    """Pixels that are asked for from a slow source once, and then remembered. uint8 [N,C,H,W]."""

    def __init__(self, source: DecodedFiles) -> None:
        self.source = source
        self.shape = source.shape
        self._values = np.empty(source.shape, dtype=np.uint8)  # takes memory only where it is written
        self._known = np.zeros(source.shape[0], dtype=bool)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        unknown = np.unique(rows[~self._known[rows]])
        if unknown.size:
            self._values[unknown] = self.source[unknown]
            self._known[unknown] = True  # after the values: another thread may read them at once
        return self._values[rows]

    def at(self, shape: tuple[int, int, int]) -> Pixels:
        """The same images fitted to another (C, H, W), decoded anew from the files."""
        return self.source.at(shape)


def kept(source: DecodedFiles) -> Pixels:
    """The source with a memory, if what it decodes to is at most `KEPT` bytes."""
    return KeptPixels(source) if math.prod(source.shape) <= KEPT else source
