"""AugMix: training on mixtures of chains of augmentations, with predictions asked to agree between them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.objectives.augmix_operations import OPERATIONS, apply_each
from robust.objectives.mixing import draws_of
from robust.objectives.objective import Batch, Loss, Objective, State


class AugMix(Objective):
    """Cross-entropy on the image plus a Jensen-Shannon price on disagreement between it and two augmented views.

    View: x' = (1 - m) x + m sum_i w_i chain_i(x), w ~ Dirichlet(alpha), m ~ Beta(alpha, alpha), each chain 1 to 3
    random operations. L = CE(f(x), y) + weight / 3 sum_v KL(p_v || M), M = (p + p_1 + p_2) / 3 (Hendrycks et al. 2020,
    arXiv 1912.02781, algorithm 1 and eq. 1; weight 12, width 3, alpha 1). Levels are uniform up to `strength`, with a
    random sign for geometric operations. Three forward and three backward passes an image, in one batch.
    """

    name: ClassVar[str] = "augmix"
    family: ClassVar[str] = "augmentation"
    source: ClassVar[str] = "arXiv 1912.02781"

    weight: float = Field(default=12.0, ge=0, description="price of disagreement")
    width: int = Field(default=3, ge=1, description="chains mixed into a view")
    depth: int = Field(default=3, ge=1, description="longest chain; its length is uniform from 1")
    alpha: float = Field(default=1.0, gt=0, description="of the Dirichlet and Beta distributions")
    strength: float = Field(default=0.3, gt=0, le=1, description="largest level; severity 3 of 10 in the paper")

    @property
    def whole_batch(self) -> str:
        """Why ranks cannot share its batches."""
        return "the operations are drawn for all of it at once"

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Both terms; terms: accuracy on the images, cross-entropy, disagreement (Jensen-Shannon, nats)."""
        draws = draws_of(batch, self.name)
        views = torch.cat([batch.images, self.view(batch.images, draws), self.view(batch.images, draws)])
        logits = classifier(views).unflatten(0, (3, -1))
        fit, apart = F.cross_entropy(logits[0], batch.labels), jensen_shannon(logits).mean()
        right = (logits[0].detach().argmax(1) == batch.labels).float().mean()
        terms = {"accuracy": right, "cross_entropy": fit.detach(), "disagreement": apart.detach()}
        return Loss(fit + self.weight * apart, terms)

    def view(self, images: Tensor, draws: np.random.Generator) -> Tensor:
        """One augmented view [N,C,H,W] of each image, in [0,1]."""
        count = len(images)
        weights = _like(draws.dirichlet([self.alpha] * self.width, count), images)
        share = _like(draws.beta(self.alpha, self.alpha, count), images).view(-1, 1, 1, 1)
        mixture = torch.zeros_like(images)
        for chain in range(self.width):
            mixture += weights[:, chain].view(-1, 1, 1, 1) * self._chain(images, draws)
        return ((1 - share) * images + share * mixture).clamp(0, 1)

    def _chain(self, images: Tensor, draws: np.random.Generator) -> Tensor:
        """One chain of 1 to `depth` operations on each image."""
        count = len(images)
        length = torch.from_numpy(draws.integers(1, self.depth + 1, count)).to(images.device)
        changed = images
        for position in range(self.depth):
            which = torch.from_numpy(draws.integers(len(OPERATIONS), size=count)).to(images.device)
            level = _like(draws.uniform(0, self.strength, count) * draws.choice([-1, 1], count), images)
            which = torch.where(position < length, which, -1)  # no operation has this number
            changed = apply_each(changed, which, level)
        return changed


def jensen_shannon(logits: Tensor) -> Tensor:
    """Jensen-Shannon divergence [N] between the softmaxes of V views, logits [V,N,K]; nats, 0 to log V."""
    log = logits.log_softmax(2)
    mean = log.exp().mean(0).clamp_min(torch.finfo(log.dtype).tiny).log()
    return (log.exp() * (log - mean)).sum(2).mean(0)


def _like(values: np.ndarray, images: Tensor) -> Tensor:
    return torch.from_numpy(values).to(images)
