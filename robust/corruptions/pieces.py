"""What the torch corruptions share: severities 1 to 5, work in cache-sized pieces, and tables of constants."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from robust.corruptions.corruption import Corruption
from robust.randomness import Randomness

SMALL = 64  # pixels: sides up to this take the constants of CIFAR-10-C


class PiecewiseCorruption(Corruption):
    """Base of corruptions that work on a few images at a time, since nothing they do crosses samples."""

    # numbers: 2 MB in float32; a piece and its copies stay in the processor's cache, and torch's calls are few
    piece: ClassVar[int] = 2**19

    severity: int = Field(default=3, ge=1, le=5, description="1 (mild) to 5 (severe)")

    def apply(self, images: Tensor, rng: Randomness) -> Tensor:
        """Corrupted images [N,C,H,W] in [0,1], in the dtype and on the device of `images` [N,C,H,W] in [0,1]."""
        if images.dim() != 4:
            raise ValueError(f"{self.name} takes images [N,C,H,W], got shape {tuple(images.shape)}")
        if not images.numel():
            return images
        size = max(1, self.piece // images[0].numel()) if images.device.type == "cpu" else len(images)
        corrupted = torch.empty_like(images, memory_format=torch.contiguous_format)
        for k in range(0, len(images), size):
            few = images[k : k + size]
            torch.clamp(self.corrupt(few, rng.select(range(k, k + len(few)))), 0, 1, out=corrupted[k : k + size])
        return corrupted

    @abstractmethod
    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Corrupted images [N,C,H,W]; `apply` clamps them to [0,1]."""


class PublishedCorruption(PiecewiseCorruption):
    """Base of the corruptions of ImageNet-C: constants for five severities, published for two image sizes."""

    cifar: ClassVar[tuple[Any, ...]]
    imagenet: ClassVar[tuple[Any, ...]]

    table: Literal["auto", "cifar", "imagenet"] = Field(
        default="auto",
        description="whose constants: those of CIFAR-10-C, of ImageNet-C, or by size (CIFAR-10-C's up to 64 pixels)",
    )

    def constants(self, images: Tensor) -> Any:
        """The published constants of this severity for images of this size."""
        small = max(images.shape[-2:]) <= SMALL
        chosen = self.cifar if self.table == "cifar" or (self.table == "auto" and small) else self.imagenet
        return chosen[self.severity - 1]
