"""Training of a deep ensemble: every member by itself, with any objective, in one loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PlainSerializer
from torch import Tensor

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.method import Method
from robust.models.deep_ensemble import EnsembleNetwork
from robust.objectives.objective import Batch, Loss, Objective, State
from robust.objectives.standard import Standard

Member = Annotated[Objective, PlainSerializer(Method.settings, return_type=dict[str, Any])]


class DeepEnsembleTraining(Objective):
    """The mean of the members' own losses, so that each member of a `deep-ensemble` is trained as if alone.

    L = 1/M sum_m L_m, L_m the loss of `member` on network m (Lakshminarayanan, Pritzel & Blundell 2017,
    arXiv 1612.01474, algorithm 1). With `adam` a member's steps do not depend on M, up to Adam's epsilon; with `sgd`
    multiply lr by M. Members differ by initialisation and by their own draws; they see the same order of images,
    which the paper finds enough. `member: pgd-at` gives its adversarially trained ensemble, each member attacked alone.
    Costs M times its member. The member's own `training` is not used: this objective's is.
    """

    name: ClassVar[str] = "deep-ensemble"
    family: ClassVar[str] = "ensemble"
    source: ClassVar[str] = "arXiv 1612.01474"

    member: Member = Field(default=Standard(), description="the objective of each member")

    @property
    def whole_batch(self) -> str:
        """The member's."""
        return self.member.whole_batch

    def start(self, classifier: Classifier, images: Tensor, seed: int) -> State:
        """The members' states, by number."""
        alone = members_of(classifier)
        return {str(m): self.member.start(one, images, seed) for m, one in enumerate(alone)}

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Mean of the members' losses; terms: means of theirs."""
        losses = [
            self.member.loss(one, replace(batch, rng=batch.rng.fork("member", m)), state[str(m)])
            for m, one in enumerate(members_of(classifier))
        ]
        terms = {name: torch.stack([loss.terms[name] for loss in losses]).mean() for name in losses[0].terms}
        return Loss(torch.stack([loss.total for loss in losses]).mean(), terms)

    def before_step(self, classifier: Classifier, state: State) -> None:
        """The members' own."""
        for m, one in enumerate(members_of(classifier)):
            self.member.before_step(one, state[str(m)])

    def after_step(self, classifier: Classifier, state: State) -> None:
        """The members' own."""
        for m, one in enumerate(members_of(classifier)):
            self.member.after_step(one, state[str(m)])

    def after_epoch(self, classifier: Classifier, state: State, train_set: Dataset) -> dict[str, float]:
        """Means of the members' numbers."""
        rows = [self.member.after_epoch(one, state[str(m)], train_set) for m, one in enumerate(members_of(classifier))]
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def members_of(classifier: Classifier) -> list[Classifier]:
    """Each member with the ensemble's normalisation.

    Raises:
        ValueError: if the network is no ensemble.
    """
    if not isinstance(classifier.module, EnsembleNetwork):
        raise ValueError("the objective deep-ensemble trains the model deep-ensemble; limit it by on.networks")
    return [classifier.twin(member) for member in classifier.module.members]
