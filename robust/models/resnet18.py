"""ResNet-18: the residual network that most robustness papers report on, with its stem chosen by the image size."""

from __future__ import annotations

from math import gcd
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from robust.models.model import Inputs, Model

Normalisation = Literal["batch", "group", "none"]


class ResNet18(Model):
    """Four stages of two basic residual blocks (He et al. 2016), for images of any size.

    h_{l+1} = relu(h_l + F(h_l)), F two 3 x 3 convolutions, widths w, 2w, 4w, 8w, then the mean over positions and
    one linear layer. Images of at most 64 pixels meet a 3 x 3 convolution of stride 1 first (the usual CIFAR form,
    11.2 M weights at w = 64); larger ones the 7 x 7 convolution of stride 2 and the max-pooling of the paper.
    With `batch`, logits in train mode depend on the batch; `group` (Wu & He 2018, arXiv 1803.08494) and `none` do
    not. Without normalisation each block's last convolution starts at zero, so that the network starts as its stem.
    """

    name: ClassVar[str] = "resnet18"
    family: ClassVar[str] = "residual"
    source: ClassVar[str] = "arXiv 1512.03385"

    width: int = Field(default=64, ge=1, description="channels of the first stage")
    norm: Normalisation = Field(
        default="batch", description="normalisation layers: batch, group (16 channels each) or none"
    )

    def build(self, inputs: Inputs) -> nn.Module:
        """Stem, eight residual blocks, mean over positions, linear layer; He-normal convolutions."""
        channels, height, width = inputs.shape
        blocks: list[nn.Module] = []
        fan_in = self.width
        for stage in range(4):
            fan_out = self.width * 2**stage
            blocks += [
                _Block(fan_in, fan_out, 1 if stage == 0 else 2, self.norm),
                _Block(fan_out, fan_out, 1, self.norm),
            ]
            fan_in = fan_out
        stem = _stem(channels, self.width, photographs=max(height, width) > 64, norm=self.norm)
        network = nn.Sequential(stem, *blocks, _MeanOverPositions(), nn.Linear(fan_in, inputs.num_classes))
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d) and layer.weight.any():  # all but the convolutions that start at zero
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        return network


class _Block(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, stride: int, norm: Normalisation) -> None:
        super().__init__()
        bias = norm == "none"
        last = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=bias)
        self.residual = nn.Sequential(
            nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=bias),
            _normalisation(fan_out, norm),
            nn.ReLU(),
            last,
            _normalisation(fan_out, norm),
        )
        if norm == "none":
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or fan_in != fan_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(fan_in, fan_out, 1, stride, bias=bias), _normalisation(fan_out, norm)
            )

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.shortcut(images) + self.residual(images))


class _MeanOverPositions(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def _stem(channels: int, width: int, photographs: bool, norm: Normalisation) -> nn.Module:
    kernel, stride = (7, 2) if photographs else (3, 1)
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=norm == "none")
    pool = nn.MaxPool2d(3, 2, padding=1) if photographs else nn.Identity()
    return nn.Sequential(convolution, _normalisation(width, norm), nn.ReLU(), pool)


def _normalisation(channels: int, norm: Normalisation) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(gcd(channels, max(1, channels // 16)), channels)
    return nn.Identity()
