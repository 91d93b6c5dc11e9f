"""Wide residual networks: few, wide blocks; WRN-28-10 is what large robustness tables and energy models report on."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from robust.models.model import Inputs, Model


class WideResNet(Model):
    """Wide residual network with pre-activation blocks (Zagoruyko & Komodakis 2016), for small images.

    h_{l+1} = s(h_l) + conv(drop(act(norm(conv(act(norm(h_l))))))), all convolutions 3 x 3; three groups of
    (depth - 4) / 6 blocks with 16 k, 32 k and 64 k channels, k = `widen`, the second and third at half the resolution
    of the one before; then the mean over positions and one linear layer. s is the identity, or a 1 x 1 convolution of
    act(norm(h_l)) where the shape changes. Depth 28 and k = 10 with batch normalisation have 36.5 M weights on
    CIFAR-10. `norm: none` with `activation: leaky-relu` is the form that energy models use (Grathwohl et al. 2020,
    arXiv 1912.03263): convolutions then have biases and start as torch's default, as in their code, because He's
    variance, unnormalised, doubles with every block.
    """

    name: ClassVar[str] = "wrn-28-10"
    family: ClassVar[str] = "residual"
    source: ClassVar[str] = "arXiv 1605.07146"

    depth: int = Field(default=28, ge=10, description="layers with weights on the longest path: 10, 16, 22, 28, 34...")
    widen: int = Field(default=10, ge=1, description="channels of each group in multiples of 16, 32 and 64")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of activations dropped between convolutions")
    norm: Literal["batch", "none"] = Field(default="batch", description="normalisation layers: batch or none")
    activation: Literal["relu", "leaky-relu"] = Field(default="relu", description="relu or leaky-relu")
    slope: float = Field(default=0.2, ge=0, lt=1, description="leaky-relu only: slope below zero")

    @field_validator("depth")
    @classmethod
    def _depth_is_whole_blocks(cls, depth: int) -> int:
        if (depth - 4) % 6:
            raise ValueError(f"depth {depth} is not 6 n + 4 with whole blocks n: use 10, 16, 22, 28, 34 or 40")
        return depth

    def build(self, inputs: Inputs) -> nn.Module:
        """Convolution, three groups of blocks, normalisation, mean over positions, linear layer."""
        blocks: list[nn.Module] = []
        fan_in = 16
        for group in range(3):
            fan_out = 16 * self.widen * 2**group
            for index in range((self.depth - 4) // 6):
                stride = 2 if group > 0 and index == 0 else 1
                blocks.append(_Block(self, fan_in, fan_out, stride))
                fan_in = fan_out
        stem = nn.Conv2d(inputs.shape[0], 16, 3, padding=1, bias=self.norm == "none")
        head = [*self.activated(fan_in), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(fan_in, inputs.num_classes)]
        network = nn.Sequential(stem, *blocks, *head)
        if self.norm == "batch":
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        return network

    def activated(self, channels: int) -> tuple[nn.Module, nn.Module]:
        """Normalisation of that many channels, and the activation."""
        normalisation = nn.BatchNorm2d(channels) if self.norm == "batch" else nn.Identity()
        # not in place: without normalisation the input is the residual stream itself
        activation = nn.ReLU() if self.activation == "relu" else nn.LeakyReLU(self.slope)
        return normalisation, activation


class _Block(nn.Module):
    def __init__(self, network: WideResNet, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        bias = network.norm == "none"
        self.before = nn.Sequential(*network.activated(fan_in))
        self.residual = nn.Sequential(
            nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=bias),
            *network.activated(fan_out),
            nn.Dropout(network.dropout),
            nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=bias),
        )
        changes = stride > 1 or fan_in != fan_out
        self.shortcut = nn.Conv2d(fan_in, fan_out, 1, stride, bias=bias) if changes else None

    def forward(self, images: Tensor) -> Tensor:
        active = self.before(images)
        kept = images if self.shortcut is None else self.shortcut(active)
        residual: Tensor = self.residual(active)
        return kept + residual
