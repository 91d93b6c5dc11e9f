"""VGG-16 without biases and normalisation: the CIFAR-10 network of the margin experiments, homogeneous of degree 14."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from pydantic import Field
from torch import nn

from robust.models.homogeneous import Homogeneous
from robust.models.model import Inputs

STAGES = (2, 2, 3, 3, 3)  # convolutions before each max pooling


class VGG16Homogeneous(Homogeneous):
    """Thirteen 3 x 3 convolutions in five stages and one linear layer, homogeneous of degree 14 in its weights.

    The convolutional stack of VGG-16 (Simonyan & Zisserman 2015, arXiv 1409.1556, table 1, column D) with 1, 2, 4, 8
    and 8 times `width` channels, ReLU after each convolution, max pooling by 2 after each stage, and a linear layer
    (Lyu & Li 2020, arXiv 1906.05890, and its official code: 14 layers with weights). 14.7 M weights on CIFAR-10.
    """

    name: ClassVar[str] = "vgg16-homogeneous"
    family: ClassVar[str] = "homogeneous"
    source: ClassVar[str] = "arXiv 1906.05890"

    width: int = Field(default=64, ge=1, description="channels of the first stage; the others have 2, 4, 8, 8 times it")

    def build(self, inputs: Inputs) -> nn.Module:
        """Five stages, flatten, a linear layer.

        Raises:
            ValueError: if a side is shorter than 32 pixels.
        """
        channels, height, width = inputs.shape
        if min(height, width) < 32:
            raise ValueError(f"vgg16-homogeneous halves the image five times; {height} x {width} pixels are too few: "
                             "use homogeneous-cnn")  # fmt: skip
        fans = [channels] + [
            self.width * 2 ** min(stage, 3) for stage, count in enumerate(STAGES) for _ in range(count)
        ]
        ends = {sum(STAGES[: stage + 1]) for stage in range(len(STAGES))}
        layers: list[nn.Module] = []
        for number, (fan_in, fan_out) in enumerate(pairwise(fans), 1):
            bias = number == 1 and self.bias == "first"
            layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=bias), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if number in ends else []
        flat = fans[-1] * (height // 32) * (width // 32)
        return self.network(*layers, nn.Flatten(), nn.Linear(flat, inputs.num_classes, bias=False))
