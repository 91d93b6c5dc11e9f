"""Positively homogeneous ReLU networks: what the three architectures of the margin studies have in common."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from robust.classifier import Classifier
from robust.models.model import Inputs, Model


class Homogeneous(Model):
    """Base of networks with Phi(a theta; x) = a^L Phi(theta; x) for all a > 0, L the number of layers with weights.

    Linear maps and convolutions, ReLU, max pooling, and no bias beyond the first layer: W x + b scales with (W, b), so
    a bias in front of everything else keeps the degree, while one further up does not (Lyu & Li 2020, arXiv
    1906.05890, section 2). The paper's text has no bias at all (`none`, the default); "no bias" in its code is a bias
    in the first layer (`first`). Weights start as He's normal, std = sqrt(2 / fan_in), in every layer, the logits'
    own too; biases at 0. The network sees [0,1] images as they are: mean and deviation of the data are not used.
    """

    bias: Literal["none", "first"] = Field(default="none", description="which layer has one: none, or first (code)")

    def classifier(self, inputs: Inputs) -> Classifier:
        """The module on plain [0,1] images."""
        return Classifier(self.build(inputs), num_classes=inputs.num_classes)

    def network(self, *layers: nn.Module) -> nn.Sequential:
        """The layers in a row, with He's normal weights; the first with weights gets the bias, where there is one."""
        weighted = [layer for layer in layers if isinstance(layer, (nn.Linear, nn.Conv2d))]
        for layer in weighted:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        return nn.Sequential(*layers)
