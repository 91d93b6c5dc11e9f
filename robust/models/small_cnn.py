"""A small convolutional network without normalisation layers: quick on a CPU, plain enough for certificates."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import nn

from robust.models.model import Inputs, Model


class SmallCNN(Model):
    """Strided convolutions, ReLU and two linear layers, for images of any size from 8 x 8 grey to photographs.

    Convolutions 4 x 4 of stride 2 (the shape of Wong & Kolter 2018, arXiv 1711.00851, section 5) halve the image,
    the first to `width` channels, all further ones to 2 `width`: two of them, or as many as it takes to bring both
    sides to 8 or below. Then a linear layer with ReLU, and the logits. No pooling and no batch statistics: a sample's
    logits depend on that sample alone.
    """

    name: ClassVar[str] = "small-cnn"
    family: ClassVar[str] = "convolutional"
    source: ClassVar[str] = "after arXiv 1711.00851"

    width: int = Field(default=16, ge=1, description="channels of the first convolution; the others have twice as many")
    hidden: int = Field(default=100, ge=1, description="units of the linear layer before the logits")

    def build(self, inputs: Inputs) -> nn.Module:
        """Convolutions, flatten, two linear layers.

        Raises:
            ValueError: if a side is shorter than 4 pixels, or much shorter than the other.
        """
        channels, height, width = inputs.shape
        layers: list[nn.Module] = []
        fan_in, fan_out = channels, self.width
        while len(layers) < 4 or max(height, width) > 8:
            if min(height, width) < 2:
                size = "{1} x {2}".format(*inputs.shape)
                raise ValueError(f"small-cnn cannot halve images of {size} pixels that often; use mlp")
            layers += [nn.Conv2d(fan_in, fan_out, 4, stride=2, padding=1), nn.ReLU()]
            fan_in, fan_out = fan_out, 2 * self.width
            height, width = height // 2, width // 2
        layers += [nn.Flatten(), nn.Linear(fan_in * height * width, self.hidden), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(self.hidden, inputs.num_classes))
