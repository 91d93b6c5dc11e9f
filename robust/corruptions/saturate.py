"""Saturation: colours too pale or too strong."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robust.corruptions.pieces import PublishedCorruption
from robust.randomness import Randomness


class Saturate(PublishedCorruption):
    """Saturation S of HSV becomes clip(a S + b, 0, 1) at the same hue and value; severities 1 and 2 make colours paler.

    With V and m the largest and smallest channel, S = (V - m) / V, and a new saturation S' moves each channel to
    V - (V - x) S'/S. Greys have hue 0, red. Grey images [N,1,H,W] have no colour and stay as they are.
    """

    name: ClassVar[str] = "saturate"
    family: ClassVar[str] = "light"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    # a, b
    cifar: ClassVar[tuple[tuple[float, float], ...]] = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))
    imagenet: ClassVar[tuple[tuple[float, float], ...]] = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] of another saturation."""
        if images.shape[1] != 3:
            return images
        factor, more = self.constants(images)
        value = images.amax(1, keepdim=True)
        chroma = value - images.amin(1, keepdim=True)
        wanted = chroma.mul(factor).add_(value, alpha=more).minimum(value)  # V times the new saturation
        coloured = torch.addcmul(value, value - images, wanted / chroma.clamp(min=1e-12), value=-1)
        if more:  # greys, whose channels all equal V, turn red
            coloured[:, 1:] -= chroma.le_(0).mul_(wanted)
        return coloured
