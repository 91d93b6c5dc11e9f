"""uniform-noise: images without any content; far out-of-distribution data for everything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field, field_validator

from robust.datasets.dataset import Part, Pixels
from robust.datasets.published import Published, PublishedDataset
from robust.randomness import generator

COUNT = 60_000


class UniformNoise(PublishedDataset):
    """uniform-noise: every byte of every image uniform on 0..255; synthetic, without labels, needs no files.

    An image is a pure function of its id and shape: it is drawn when a batch asks for it and never stored. Fitted to
    another shape (`robust.datasets.adapt`) the noise is drawn at that shape, not resized, so it stays uniform.
    """

    name: ClassVar[str] = "uniform-noise"
    family: ClassVar[str] = "synthetic"
    source: ClassVar[str] = "Hendrycks & Gimpel 2017, arXiv 1610.02136"

    shape: tuple[int, int, int] = Field(default=(1, 28, 28), description="channels, height, width of the images")
    test: int | None = Field(default=10_000, ge=1, description="images; all 60,000 when empty")

    @field_validator("shape")
    @classmethod
    def _drawable(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        channels, height, width = shape
        if channels not in (1, 3) or not (1 <= height <= 4096 and 1 <= width <= 4096):
            raise ValueError(f"{shape} is no image shape; write (channels, height, width), with 1 or 3 channels")
        return shape

    def files(self, part: Part) -> tuple[Path, ...]:
        """None: the images are drawn."""
        return ()

    def whole(self, part: Part) -> Published:
        """60,000 images without labels."""
        return Published(Noise(COUNT, self.shape), np.full(COUNT, -1, dtype=np.int64), (), self.name)


@dataclass(frozen=True)
class Noise:
    """Uniform noise, drawn by the row."""

    count: int
    image: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (self.count, *self.image)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        images = [generator(0, "uniform-noise", row).integers(0, 256, self.image, dtype=np.uint8) for row in rows]
        return np.stack(images) if images else np.empty((0, *self.image), dtype=np.uint8)

    def at(self, shape: tuple[int, int, int]) -> Pixels:
        """Noise of another shape."""
        return Noise(self.count, shape)
