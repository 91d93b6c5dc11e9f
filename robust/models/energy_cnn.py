"""A small convolutional energy network: strided convolutions without normalisation, made to be differentiated by x."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn

from robust.classifier import Classifier
from robust.models.model import Inputs, Model


class EnergyCNN(Model):
    """Strided convolutions with LeakyReLU or Swish and one linear layer, no normalisation: an energy model for MNIST.

    Convolutions 4 x 4 of stride 2, each halving the image, then the logits. No batch statistics, because the energy of
    an image must depend on that image alone; LeakyReLU 0.2, or Swish, which is smooth and trains more stably as the
    density of a joint energy model (Grathwohl et al. 2020, arXiv 1912.03263, and the discussion of their code).
    Weights start as torch's default. Pixels are scaled to [-1,1], as that paper has them, and not by the data's
    deviation: the sampler's step is tuned to this scale.
    """

    name: ClassVar[str] = "energy-cnn"
    family: ClassVar[str] = "convolutional"
    source: ClassVar[str] = "after arXiv 1912.03263"

    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(16, 32, 64), min_length=1, description="channels of each convolution; each halves the image"
    )
    activation: Literal["leaky-relu", "swish"] = Field(default="leaky-relu", description="leaky-relu (0.2) or swish")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of units dropped before the linear layer")

    def build(self, inputs: Inputs) -> nn.Module:
        """Convolutions, flatten, linear layer.

        Raises:
            ValueError: if the image cannot be halved once for each convolution.
        """
        fan_in, height, width = inputs.shape
        layers: list[nn.Module] = []
        for channels in self.channels:
            if min(height, width) < 2:
                size = "{1} x {2}".format(*inputs.shape)
                raise ValueError(f"energy-cnn cannot halve images of {size} pixels that often; give fewer channels")
            active = nn.LeakyReLU(0.2) if self.activation == "leaky-relu" else nn.SiLU()
            layers += [nn.Conv2d(fan_in, channels, 4, stride=2, padding=1), active]
            fan_in, height, width = channels, height // 2, width // 2
        head = [nn.Flatten(), nn.Linear(fan_in * height * width, inputs.num_classes)]
        dropped = [nn.Dropout(self.dropout)] if self.dropout else []
        return nn.Sequential(*layers, *dropped, *head)

    def classifier(self, inputs: Inputs) -> Classifier:
        """The module on pixels scaled from [0,1] to [-1,1]."""
        half = (0.5,) * inputs.shape[0]
        return Classifier(self.build(inputs), half, half, inputs.num_classes)
