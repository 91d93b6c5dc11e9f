"""The MNIST network of the margin experiments: two convolutions, two linear layers, homogeneous of degree 4."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import nn

from robust.models.homogeneous import Homogeneous
from robust.models.model import Inputs


class HomogeneousCNN(Homogeneous):
    """Convolutional ReLU network that is homogeneous of degree 4 in its weights: 32-64-1024-10 on MNIST.

    5 x 5 convolution to `first` channels, max pooling by 2, 3 x 3 convolution to `second` channels, max pooling by 2,
    a linear layer to `hidden` units, and the logits; both convolutions keep the size of the image (Lyu & Li 2020,
    arXiv 1906.05890, appendix on experiments, and the official code). On MNIST the He-normal start has layer norms of
    about 8, 11.3, 45.3 and 4.5.
    """

    name: ClassVar[str] = "homogeneous-cnn"
    family: ClassVar[str] = "homogeneous"
    source: ClassVar[str] = "arXiv 1906.05890"

    first: int = Field(default=32, ge=1, description="channels of the first convolution")
    second: int = Field(default=64, ge=1, description="channels of the second convolution")
    hidden: int = Field(default=1024, ge=1, description="units of the linear layer before the logits")

    def build(self, inputs: Inputs) -> nn.Module:
        """Convolution, pooling, convolution, pooling, flatten, two linear layers.

        Raises:
            ValueError: if a side is shorter than 4 pixels.
        """
        channels, height, width = inputs.shape
        if min(height, width) < 4:
            raise ValueError(f"homogeneous-cnn halves the image twice; {height} x {width} pixels are too few: use "
                             "homogeneous-mlp")  # fmt: skip
        return self.network(
            nn.Conv2d(channels, self.first, 5, padding=2, bias=self.bias == "first"),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(self.first, self.second, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(self.second * (height // 4) * (width // 4), self.hidden, bias=False),
            nn.ReLU(),
            nn.Linear(self.hidden, inputs.num_classes, bias=False),
        )
