"""The fully connected network of margin studies on a CPU: homogeneous of degree 3 as it stands."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from robust.models.homogeneous import Homogeneous
from robust.models.model import Inputs


class HomogeneousMLP(Homogeneous):
    """Fully connected ReLU network that is homogeneous in its weights, on flattened images of any size.

    f(x) = W_L relu(... relu(W_1 vec(x)) ...), of degree L = hidden layers + 1, started as He's normal (see
    `Homogeneous`).
    """

    name: ClassVar[str] = "homogeneous-mlp"
    family: ClassVar[str] = "homogeneous"
    source: ClassVar[str] = "arXiv 1906.05890"

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(128, 128), description="units of each hidden layer"
    )

    def build(self, inputs: Inputs) -> nn.Module:
        """Flatten, then linear layers with ReLU between them."""
        sizes = (math.prod(inputs.shape), *self.hidden, inputs.num_classes)
        layers: list[nn.Module] = [nn.Flatten()]
        for place, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            layers += [nn.Linear(fan_in, fan_out, bias=place == 0 and self.bias == "first"), nn.ReLU()]
        return self.network(*layers[:-1])
