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

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] as the decoder would return them."""
        pixels, quality = (images.to(torch.float32) * 255).round(), self.constants(images)
        if images.shape[1] != 3:
            return _coded(pixels, quality, LUMINANCE).clamp(0, 255).to(images.dtype) / 255
        height, width = images.shape[-2:]
        pixels = F.pad(pixels, (0, -width % 16, 0, -height % 16), mode="replicate")
        luma = luminance(pixels).round()
        blue, red = ((pixels[:, k : k + 1] - luma) * scale + 128 for k, scale in ((2, 0.5 / 0.886), (0, 0.5 / 0.701)))
        chroma = F.avg_pool2d(torch.cat([blue, red], dim=1), 2).round()
        luma = _coded(luma, quality, LUMINANCE)[..., :height, :width]
        chroma = _coded(chroma, quality, CHROMINANCE)[..., : (height + 1) // 2, : (width + 1) // 2] - 128
        chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
        blue, red = chroma[..., :height, :width].split(1, dim=1)
        green = luma - (0.114 * 1.772 / 0.587) * blue - (0.299 * 1.402 / 0.587) * red
        decoded = torch.cat([luma + 1.402 * red, green, luma + 1.772 * blue], dim=1)
        return decoded.round_().clamp_(0, 255).to(images.dtype) / 255


def _coded(plane: Tensor, quality: int, table: str) -> Tensor:
    """Planes [N,C,H,W] of levels 0..255 after quantisation, as integers."""
    height, width = plane.shape[-2:]
    padded = F.pad(plane - 128, (0, -width % 8, 0, -height % 8), mode="replicate")
    down, right = padded.shape[-2] // 8, padded.shape[-1] // 8
    blocks = padded.view(*plane.shape[:2], down, 8, right, 8).transpose(3, 4).reshape(-1, 64)
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
