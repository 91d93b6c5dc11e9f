"""LogitNorm: cross-entropy on logits of constant length, against over-confidence."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.objectives.objective import Batch, Loss, Objective, State


class LogitNorm(Objective):
    """Cross-entropy on normalised logits, so that growing logits cannot lower the loss.

    L = mean_n CE(f(x_n) / (tau |f(x_n)|_2), y_n) (Wei et al. 2022, arXiv 2205.09310, eq. 6; tau = 0.04 on CIFAR-10).
    Only the training loss is normalised: the network's own logits are not, so a temperature must be fitted before
    their softmax is read as a probability. One forward and one backward pass an image.
    """

    name: ClassVar[str] = "logit-norm"
    family: ClassVar[str] = "regularisation"
    source: ClassVar[str] = "arXiv 2205.09310"

    temperature: float = Field(default=0.04, gt=0, description="tau; 1 / tau is the length of the logits in the loss")

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Cross-entropy on normalised logits; terms: accuracy, mean length of the logits."""
        logits = classifier(batch.images)
        length = torch.linalg.vector_norm(logits, dim=1, keepdim=True)
        total = F.cross_entropy(logits / (self.temperature * length.clamp_min(1e-7)), batch.labels)
        right = (logits.detach().argmax(1) == batch.labels).float().mean()
        return Loss(total, {"accuracy": right, "logit_length": length.detach().mean()})
