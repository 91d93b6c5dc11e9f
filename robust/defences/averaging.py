"""What defences that average several networks share: a classifier made of classifiers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robust.classifier import Classifier, averaged


class Averaged(Classifier):
    """Several networks as one: the logits are the log of their mean probability, log 1/M sum_m softmax(f_m(x)).

    Deterministic and differentiable; a gradient passes through all members. Features are those of `first`, the
    network that the members stand around.
    """

    first: Classifier

    def __init__(self, first: Classifier, members: Sequence[Classifier]) -> None:
        nn.Module.__init__(self)
        self.first, self.module = first, first.module
        self.members = nn.ModuleList(members)
        self.mean, self.std, self.num_classes = first.mean, first.std, first.num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N,K]."""
        return averaged(torch.stack([member(images) for member in self.members]))

    @property
    def random(self) -> bool:
        """Whether any member is."""
        return any(isinstance(member, Classifier) and member.random for member in self.members)

    def views(self) -> dict[str, Classifier]:
        """`substitute`: the single network."""
        return {"substitute": self.first}

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features of the single network."""
        return self.first.features(images)

    def normalise(self, images: Tensor) -> Tensor:
        """What the single network's module sees."""
        return self.first.normalise(images)


def unbound(name: str, field: str) -> ValueError:
    """The error of a defence that was not fitted before it was used."""
    return ValueError(f"{name} must be fitted first: call bind(classifier, Material({field}=...)) before wrap")
