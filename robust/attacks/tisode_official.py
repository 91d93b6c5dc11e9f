"""The attack that TisODE was published with, kept so that its numbers can be compared like with like."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import FixedBudget, broadcast, fooled, input_gradient
from robust.classifier import Classifier
from robust.losses import best_other
from robust.method import Exact
from robust.randomness import Randomness
from robust.threat import norm_of

TINY = 1e-30  # what the authors add to a probability before its logarithm


class TisODEOfficial(FixedBudget):
    """The weak PGD of the TisODE paper: no random start, a loss that saturates, 10 steps of eps/5.

    Yan et al. 2020, arXiv 1910.05513, as their code has it:  x <- clip(x - a g / (|g| + 1e-8)) with g the gradient of
    max(log(p_y + 1e-30) - log(max_j!=y p_j + 1e-30), 0) / 2 and p the softmax: where p_y rounds to 1 the other
    logarithm is of 1e-30 and has no gradient, and a coordinate without a gradient does not move. Of the images that
    fool the network the one nearest in l2 is kept; farther than 20 in l2 counts as a failure. `steps: 1` is the
    authors' FGSM, whose step is eps. It understates how easily a network is fooled: report it beside a strong attack.
    Costs steps + 1 forward and steps backward passes.
    """

    name: ClassVar[str] = "tisode-official"
    family: ClassVar[str] = "fixed budget"
    source: ClassVar[str] = "arXiv 1910.05513"
    norms: ClassVar[tuple[str, ...]] = ("linf",)

    steps: int = Field(default=10, ge=1, description="gradient steps; 1 is the authors' FGSM")
    step_size: Exact | None = Field(default=None, gt=0, description="eps/5 if not given, or eps for a single step")
    farthest: float = Field(default=20.0, gt=0, description="l2 distance beyond which a success is counted as failure")

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb`; draws nothing."""
        size = float(self.step_size) if self.step_size else self.threat.radius / (1 if self.steps == 1 else 5)
        moved, best = images, images.clone()
        nearest = images.new_full((len(images),), torch.inf)
        for step in range(self.steps + 1):
            if step < self.steps:
                gradient, _, logits = input_gradient(classifier, moved, lambda z: saturating_loss(z, labels))
            else:
                gradient = torch.zeros_like(moved)
                with torch.no_grad():
                    logits = classifier(moved)
            distance = norm_of(moved - images, "l2")
            closer = fooled(logits, labels) & (distance < nearest)
            nearest = torch.where(closer, distance, nearest)
            best = torch.where(broadcast(closer, images), moved, best)
            moved = self.threat.project(moved - size * gradient / (gradient.abs() + 1e-8), images)
        kept = nearest <= self.farthest
        failed = nearest.isinf()
        # a sample that was never fooled gets its last image, which the evaluation will find right again
        return torch.where(broadcast(kept, images), best, torch.where(broadcast(failed, images), moved, images))

    def passes(self, num_classes: int) -> tuple[int, int]:
        """One forward more than backward."""
        return (self.steps + 1, self.steps)


def saturating_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """max(log(p_y + 1e-30) - log(max_{j != y} p_j + 1e-30), 0) / 2, [N], to be decreased."""
    p = logits.softmax(1)
    own, other = p.gather(1, labels[:, None])[:, 0], best_other(p, labels)
    return ((own + TINY).log() - (other + TINY).log()).clamp_min(0) / 2
