"""A fully connected network: the smallest thing that classifies images."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from robust.models.model import Inputs, Model


class MLP(Model):
    """Fully connected ReLU network on flattened images, of any size.

    f(x) = W_L relu(... relu(W_1 vec(x) + b_1) ...) + b_L. Weights start as torch's default, uniform with variance
    1 / (3 fan_in).
    """

    name: ClassVar[str] = "mlp"
    family: ClassVar[str] = "fully connected"
    source: ClassVar[str] = "textbook"

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(256, 256), description="units of each hidden layer"
    )

    def build(self, inputs: Inputs) -> nn.Module:
        """Flatten, then linear layers with ReLU between them."""
        sizes = (math.prod(inputs.shape), *self.hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], inputs.num_classes))
