"""DDN: an l2 attack that decouples the direction of the perturbation from its norm."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import SmallestDistance, broadcast, fooled, input_gradient
from robust.attacks.nearest import Nearest, unit_ascent
from robust.classifier import Classifier
from robust.losses import LossName, loss_by_name
from robust.randomness import Randomness
from robust.threat import norm_of, steepest


class DDN(SmallestDistance):
    """Decoupled direction and norm: follow the gradient on a sphere that shrinks on success and grows on failure.

    Rony et al. 2019, "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and
    Defenses", arXiv 1811.09600, algorithm 1. With g the gradient of the loss:
        delta <- delta + a_k g / |g|_2,   r <- (1 - gamma) r if misclassified else (1 + gamma) r,
        x <- clip(x_0 + r delta / |delta|_2),
    where a_k falls from `step_size` to a hundredth of it along a cosine. Where the gradient is exactly zero a random
    direction is taken, as in the authors' code; their rounding to 8 bits is left to the evaluation.

    Cost: `steps` forward and backward passes.
    """

    name = "ddn"
    family = "smallest distance"
    source = "arXiv 1811.09600"
    norms: ClassVar[tuple[str, ...]] = ("l2",)

    steps: int = Field(default=100, ge=1, description="iterations; the paper's 100, 300 or 1000")
    gamma: float = Field(default=0.05, gt=0, lt=1, description="relative change of the radius in a step")
    radius: float = Field(default=1.0, gt=0, description="first radius, in [0,1] image units")
    step_size: float = Field(default=1.0, gt=0, description="first step, l2 in [0,1] image units")
    loss: LossName = Field(default="ce", description="what is increased: ce, margin, dlr or auto")

    def passes(self, num_classes: int) -> tuple[int, int]:
        """`steps` of each."""
        return self.steps, self.steps

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss [N] to increase; override it to attack with your own."""
        return loss_by_name(self.loss, logits.shape[1])(logits, labels)

    def minimise(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """The nearest misclassified image seen, [N,C,H,W]."""
        nearest = Nearest(images, "l2")
        moved, radius = images, images.new_full((len(images),), self.radius)
        farthest = norm_of(torch.maximum(images, 1 - images), "l2")
        for step in range(self.steps):
            gradient, _, logits = input_gradient(classifier, moved, lambda z: self.objective(z, labels))
            wrong = fooled(logits, labels)
            nearest.offer(moved, wrong)
            radius = radius * torch.where(wrong, 1 - self.gamma, 1 + self.gamma)
            radius = torch.minimum(radius, farthest)
            delta = moved - images + self._rate(step) * unit_ascent(gradient, rng.fork("flat", step))
            moved = (images + broadcast(radius, images) * steepest(delta, "l2")).clamp(0.0, 1.0)
        return nearest.images

    def _rate(self, step: int) -> float:
        return self.step_size * (0.01 + 0.99 * (1 + math.cos(math.pi * step / self.steps)) / 2)
