"""JPEG compression without the file: what the format loses is lost in its quantised cosine transform."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robust.corruptions.colour import luminance
from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness

# ITU-T T.81 (1992), annex K.1: quantisation steps of luminance and of chrominance at quality 50, row by row
LUMINANCE = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
CHROMINANCE = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""


class JPEGCompression(PublishedCorruption):
    """JPEG at a low quality: 8 x 8 blocks, 4:2:0 chroma for three channels, else each channel as grey; 8-bit results.

    Steps of T.81: luma and chroma, chroma averaged over 2 x 2, blocks less 128 through the discrete cosine transform,
    coefficients divided by the steps q and rounded, and all of it back. Pixels are integers, and the transform's
    matrix is rounded to 13 bits after the point (as in the usual integer codecs), so float32 sums are exact in any
    order and the result cannot depend on the machine.
    """

    name: ClassVar[str] = "jpeg-compression"
    family: ClassVar[str] = "digital"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    cifar: ClassVar[tuple[int, ...]] = (80, 65, 58, 50, 40)  # quality
    imagenet: ClassVar[tuple[int, ...]] = (25, 18, 15, 10, 7)

    piece: ClassVar[int] = 2**20  # six images of 224 px: many short calls, on blocks

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] as the decoder would return them."""
        pixels, quality = images.to(torch.float32).mul(255).round_(), self.constants(images)
        if images.shape[1] != 3:
            return _coded(pixels, quality, LUMINANCE).to(images.dtype) / 255
        height, width = images.shape[-2:]
        pixels = _completed(pixels, 16)
        luma = luminance(pixels).round_()
        grey, red, blue = (_halved(plane) for plane in (luma, pixels[:, :1], pixels[:, 2:]))
        chroma = torch.cat([(blue - grey).mul_(0.5 / 0.886), (red - grey).mul_(0.5 / 0.701)], dim=1).add_(128).round_()
        luma = _coded(luma, quality, LUMINANCE)[..., :height, :width]
        chroma = _coded(chroma, quality, CHROMINANCE)[..., : (height + 1) // 2, : (width + 1) // 2].sub_(128)
        blue, red = _doubled(chroma)[..., :height, :width].split(1, dim=1)
        decoded = torch.empty_like(images, dtype=torch.float32)
        torch.add(luma, red, alpha=1.402, out=decoded[:, :1])
        torch.add(luma, blue, alpha=-0.114 * 1.772 / 0.587, out=decoded[:, 1:2])
        decoded[:, 1:2].add_(red, alpha=-0.299 * 1.402 / 0.587)
        torch.add(luma, blue, alpha=1.772, out=decoded[:, 2:])
        return decoded.round_().to(images.dtype).div_(255)


def _completed(planes: Tensor, size: int) -> Tensor:
    """Planes [N,C,H,W] with the last row and column repeated up to whole blocks."""
    down, right = (-side % size for side in planes.shape[-2:])
    return F.pad(planes, (0, right, 0, down), mode="replicate") if down or right else planes


def _halved(planes: Tensor) -> Tensor:
    """Means over 2 x 2 pixels."""
    rows = planes[..., ::2, :] + planes[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]).div_(4)


def _doubled(planes: Tensor) -> Tensor:
    """[N,C,2H,2W], bilinear: each new pixel is 3/4 of the one it lies in and 1/4 of its nearer neighbour."""
    number, channels, height, width = planes.shape
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    near = padded[..., 1:-1, :] * 0.75
    tall = near.new_empty(number, channels, height, 2, width + 2)
    torch.add(near, padded[..., :-2, :], alpha=0.25, out=tall[..., 0, :])
    torch.add(near, padded[..., 2:, :], alpha=0.25, out=tall[..., 1, :])
    tall = tall.view(number, channels, 2 * height, width + 2)
    near = tall[..., 1:-1] * 0.75
    sides = (torch.add(near, beside, alpha=0.25) for beside in (tall[..., :-2], tall[..., 2:]))
    # two floats as one complex number: the quickest way to interleave them
    return torch.view_as_real(torch.complex(*sides)).flatten(3)


def _coded(plane: Tensor, quality: int, table: str) -> Tensor:
    """Planes [N,C,H,W] of levels 0..255 after quantisation, as integers."""
    height, width = plane.shape[-2:]
    padded = _completed(plane, 8)
    down, right = padded.shape[-2] // 8, padded.shape[-1] // 8
    blocks = padded.view(*plane.shape[:2], down, 8, right, 8).transpose(3, 4).reshape(-1, 64).sub_(128)
    basis, steps = (part.to(plane.device) for part in _transform(quality, table))
    coefficients = (blocks @ basis).div_(steps).round_().mul_(steps)
    blocks = (coefficients @ basis.T).round_().add_(128).clamp_(0, 255)
    whole = blocks.view(*plane.shape[:2], down, right, 8, 8).transpose(3, 4).reshape(padded.shape)
    return whole[..., :height, :width]


@lru_cache(maxsize=16)
def _transform(quality: int, table: str) -> tuple[Tensor, Tensor]:
    """The two-dimensional cosine transform [64 pixels, 64 coefficients] and the steps [64] of a quality in 1..100."""
    k = np.arange(8)
    cosines = np.cos((2 * k[:, None] + 1) * k * np.pi / 16) * np.where(k == 0, np.sqrt(1 / 8), 0.5)
    basis = np.round(np.kron(cosines, cosines) * 2**13) / 2**13
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = np.clip((np.array(table.split(), dtype=np.int64) * scale + 50) // 100, 1, 255)
    return torch.as_tensor(basis, dtype=torch.float32), torch.as_tensor(steps, dtype=torch.float32)
