"""Image files decoded to uint8 with Pillow: checked for size before they are decoded, named when they are broken."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import Image, ImageOps

from robust.datasets.dataset import DatasetError

Colour = Literal["colour", "grey"]
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
LARGEST = 64_000_000  # pixels of one image: more than any camera in these sets, less than a decompression bomb
BROKEN = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    struct.error,
    zlib.error,
    MemoryError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)  # fmt: skip - what Pillow raises on damaged files


def decode(source: Path | IO[bytes], name: str, colour: Colour) -> Image.Image:
    """One image, upright by its EXIF orientation, as 8-bit RGB or grey (ITU-R 601 luma); transparency is dropped.

    Args:
        source: a file, or its bytes.
        name: what messages call it.
        colour: "colour" for three channels, "grey" for one.

    Raises:
        DatasetError: if it is broken, of an unknown format, or larger than `LARGEST` pixels.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"{image.width} x {image.height} pixels are more than the {LARGEST} allowed")
            if image.mode in ("I", "F"):
                raise ValueError("32-bit pixels; convert it to 8 bits a channel")
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255 instead of scaling them
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return upright.convert("RGB" if colour == "colour" else "L")
    except BROKEN as error:
        raise DatasetError(f"{name} cannot be read as an image: {error}; replace or remove it") from error


def fit(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scaled so that it just covers the size, then cropped at the centre; bilinear, antialiased when it shrinks."""
    return ImageOps.fit(image, (width, height), method=Image.Resampling.BILINEAR)


def to_array(image: Image.Image) -> np.ndarray:
    """uint8 [C,H,W] of an RGB or grey image."""
    values = np.asarray(image)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def to_image(values: np.ndarray) -> Image.Image:
    """The RGB or grey image of uint8 [C,H,W], C = 3 or 1."""
    return Image.fromarray(values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0)))
