"""The model contract: an architecture is a method that builds a module for given inputs."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from torch import nn

from robust.classifier import Classifier
from robust.method import Method


class Inputs(BaseModel):
    """What a model is built for: everything about a dataset that shapes a network.

    Attributes:
        shape: (C, H, W).
        num_classes: K.
        mean, std: per channel over the training images, in [0,1] units.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Model(Method):
    """Base of all architectures."""

    kind: ClassVar[str] = "model"

    @abstractmethod
    def build(self, inputs: Inputs) -> nn.Module:
        """A freshly initialised module: normalised images [N,C,H,W] -> logits [N,K].

        Initialisation draws from torch's global generator, which the caller seeds.

        Raises:
            ValueError: if the architecture cannot serve these inputs; the message says which it needs.
        """

    def classifier(self, inputs: Inputs) -> Classifier:
        """The module with its normalisation inside."""
        return Classifier(self.build(inputs), inputs.mean, inputs.std, inputs.num_classes)
