"""ResNeXt-34 (2 x 32): the network of the Tulip experiments, fifteen two-branch blocks."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from robust.models.model import Inputs, Model
from robust.models.tanh_logits import TanhLogits


class ResNeXt34(Model):
    """Two-branch residual network of depth 34 (5-5-5 blocks, 32-64-128 channels), with plain or tanh logits.

    h_{l+1} = relu(h_l + mean over branches of norm(conv_b(relu(norm(conv_b(h_l)))))), all convolutions 3 x 3
    (Xie et al. 2017, arXiv 1611.05431, in the form of Finlay, Oberman & Abbasi 2018, arXiv 1810.00953, and their
    code). The second and third stage open with relu(norm(conv 1 x 1)) to twice the channels, whose weights start as a
    softmax over input channels, and halve the image by averaging after their first block. BatchNorm has no scale
    and shift; `affine: true` gives them to the blocks' ones, as the released code does in one of its versions.
    """

    name: ClassVar[str] = "resnext34-2x32"
    family: ClassVar[str] = "residual"
    source: ClassVar[str] = "arXiv 1810.00953"

    blocks: tuple[int, int, int] = Field(default=(5, 5, 5), description="blocks in each of the three stages")
    width: int = Field(
        default=32, ge=1, description="channels of the first stage; the others have 2 and 4 times as many"
    )
    branches: int = Field(default=2, ge=1, description="branches of a block, averaged")
    affine: bool = Field(default=False, description="whether the blocks' BatchNorm learns a scale and a shift")
    logits: Literal["plain", "tanh"] = Field(default="plain", description="plain, or squeezed by the tanh logit layer")

    def build(self, inputs: Inputs) -> nn.Module:
        """Convolution, three stages, mean over positions, linear layer, and the tanh layer if asked for.

        Raises:
            ValueError: if a side is shorter than 4 pixels.
        """
        channels, height, width = inputs.shape
        if min(height, width) < 4:
            raise ValueError(f"resnext34-2x32 halves images twice: {height} x {width} pixels are too few, use mlp")
        stem = [nn.Conv2d(channels, self.width, 3, padding=1), nn.BatchNorm2d(self.width, affine=False), nn.ReLU()]
        stages: list[nn.Module] = []
        fan_in = self.width
        for stage, count in enumerate(self.blocks):
            fan_out = self.width * 2**stage
            for index in range(count):
                stages.append(_Block(fan_in, fan_out, self.branches, self.affine))
                fan_in = fan_out
                if stage > 0 and index == 0:
                    stages.append(nn.AvgPool2d(2))
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(fan_in, inputs.num_classes)]
        body = nn.Sequential(*stem, *stages, *head)
        return TanhLogits(body, inputs.num_classes) if self.logits == "tanh" else body


class _Block(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, branches: int, affine: bool) -> None:
        super().__init__()
        self.branches = branches
        self.widen: nn.Module = nn.Identity()
        if fan_in != fan_out:
            mix = nn.Conv2d(fan_in, fan_out, 1, bias=False)
            with torch.no_grad():
                mix.weight.copy_(mix.weight.flatten(1).softmax(1).view_as(mix.weight))
            self.widen = nn.Sequential(mix, nn.BatchNorm2d(fan_out, affine=affine), nn.ReLU())
        inside = fan_out * branches
        self.branch = nn.Sequential(
            nn.Conv2d(fan_out, inside, 3, padding=1, bias=False),
            nn.BatchNorm2d(inside, affine=affine),
            nn.ReLU(),
            nn.Conv2d(inside, inside, 3, padding=1, groups=branches, bias=False),
            nn.BatchNorm2d(inside, affine=affine),
        )

    def forward(self, images: Tensor) -> Tensor:
        kept = self.widen(images)
        inside: Tensor = self.branch(kept)
        return F.relu(kept + inside.unflatten(1, (self.branches, -1)).mean(1))
