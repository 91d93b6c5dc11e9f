"""Deep ensemble: several networks of one architecture, whose probabilities are averaged."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PlainSerializer
from torch import Tensor, nn

from robust.classifier import Classifier, averaged
from robust.method import Method
from robust.models.model import Inputs, Model
from robust.models.small_cnn import SmallCNN

Member = Annotated[Model, PlainSerializer(Method.settings, return_type=dict[str, Any])]


class DeepEnsemble(Model):
    """Independently initialised networks inside one module; its logits are the log of their mean probability.

    p(y|x) = 1/M sum_m softmax(f_m(x))_y (Lakshminarayanan, Pritzel & Blundell 2017, arXiv 1612.01474, section 2.4).
    Train it with the objective `deep-ensemble`, which gives each member its own loss; any other objective would train
    the mean as one wide network. Costs M times its member.
    """

    name: ClassVar[str] = "deep-ensemble"
    family: ClassVar[str] = "ensemble"
    source: ClassVar[str] = "arXiv 1612.01474"

    member: Member = Field(default=SmallCNN(), description="the architecture of each member")
    members: int = Field(default=5, ge=2, description="networks; the paper's 5")

    def build(self, inputs: Inputs) -> nn.Module:
        """The members, each with its own initialisation."""
        return EnsembleNetwork([self.member.build(inputs) for _ in range(self.members)])


class EnsembleNetwork(nn.Module):
    """Networks that take the same images; the output is the log of their mean probability, [N,K]."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """log 1/M sum_m softmax(f_m(x)), [N,K]."""
        return averaged(torch.stack([member(images) for member in self.members]))

    def features(self, images: Tensor) -> Tensor:
        """The members' penultimate features side by side, [N, sum D_m]."""
        return torch.cat([Classifier(member).features(images) for member in self.members], dim=1)
