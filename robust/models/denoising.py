"""Feature denoising: a block that replaces features by a weighted mean over positions, for use inside a network."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Denoising = Literal["none", "gaussian", "dot-product", "mean"]


class FeatureDenoising(nn.Module):
    """z + W y with y the denoised features and W a 1 x 1 convolution (Xie et al. 2019, arXiv 1812.03411, section 4).

    y_i = sum_j w_ij z_j over all positions j, with w the softmax over j of theta(z_i) . phi(z_j) / sqrt(C)
    (`gaussian`, theta and phi 1 x 1 convolutions) or z_i . z_j / P with P positions (`dot-product`); `mean` is a
    3 x 3 mean filter.

    Args:
        kind: gaussian, dot-product or mean.
        channels: C.
    """

    def __init__(self, kind: Denoising, channels: int) -> None:
        super().__init__()
        self.kind = kind
        self.embed = nn.Conv2d(channels, 2 * channels, 1, bias=False) if kind == "gaussian" else None
        self.project = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N,C,H,W] -> [N,C,H,W]; a sample's depend on that sample alone."""
        found: Tensor = features + self.project(self.denoised(features))
        return found

    def denoised(self, features: Tensor) -> Tensor:
        """y, [N,C,H,W]."""
        if self.kind == "mean":
            return F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)
        flat = features.flatten(2)
        if self.embed is None:
            weights = flat.transpose(1, 2) @ flat / flat.shape[2]
        else:
            theta, phi = self.embed(features).flatten(2).chunk(2, dim=1)
            weights = torch.softmax(theta.transpose(1, 2) @ phi / math.sqrt(flat.shape[1]), dim=2)
        return (flat @ weights.transpose(1, 2)).view_as(features)
