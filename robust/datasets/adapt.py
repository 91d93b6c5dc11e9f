"""One data set in the shape of another: what out-of-distribution images need before a network can take them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from robust.datasets.dataset import Dataset, DatasetError, Pixels, Rows
from robust.datasets.images import fit, to_array, to_image
from robust.datasets.published import Published


@runtime_checkable
class Redrawn(Protocol):
    """Pixels that can make their images at another shape better than by resizing what they made."""

    def at(self, shape: tuple[int, int, int]) -> Pixels:
        """The same images as (C, H, W)."""


@dataclass(frozen=True)
class Resized:
    """Other pixels, converted to a shape by the batch."""

    source: Pixels
    image: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (self.source.shape[0], *self.image)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return resized(self.source[rows], self.image)


def adapt(dataset: Dataset, shape: tuple[int, int, int]) -> Dataset:
    """The dataset with images of the shape (C, H, W), converted as batches ask for them.

    Colour becomes grey by ITU-R 601 luma, grey becomes colour by three equal channels; images are scaled to cover the
    size and cropped at the centre, bilinear and antialiased. Image folders are decoded at the new size and synthetic
    noise is drawn at it. Labels and ids stay; the digest changes with the shape.

    Raises:
        DatasetError: if either shape has other than 1 or 3 channels.
    """
    if dataset.shape == shape:
        return dataset
    if {dataset.shape[0], shape[0]} - {1, 3} or min(shape) < 1:
        raise DatasetError(f"{dataset.name}: images {dataset.shape} cannot become {shape}; channels must be 1 or 3")
    digest = hashlib.sha256(f"{dataset.source_digest} as {shape}".encode()).hexdigest()
    return replace(dataset, pixels=reshaped(dataset.pixels, shape), source_digest=digest)


def reshaped(pixels: Pixels, shape: tuple[int, int, int]) -> Pixels:
    """The pixels at another (C, H, W): redrawn at the source where it can, else resized."""
    if isinstance(pixels, Rows):
        return Rows(reshaped(pixels.source, shape), pixels.rows)
    if isinstance(pixels, Published):
        return reshaped(pixels.pixels, shape)
    if isinstance(pixels, Redrawn):
        return pixels.at(shape)
    return Resized(pixels, shape)


def resized(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 [N,C,H,W] in, uint8 [N, *shape] out; see `adapt`."""
    if images.shape[1:] == shape:
        return images
    channels, height, width = shape
    mode = "RGB" if channels == 3 else "L"
    values = [to_array(fit(to_image(image).convert(mode), height, width)) for image in images]
    return np.stack(values) if values else np.empty((0, *shape), dtype=np.uint8)
