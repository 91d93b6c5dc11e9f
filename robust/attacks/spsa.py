"""SPSA: a score-based black-box attack that estimates the gradient from random sign directions."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import FixedBudget
from robust.attacks.estimated import antithetic_gradient, descend
from robust.classifier import Classifier
from robust.losses import LossName
from robust.randomness import Randomness


class SPSA(FixedBudget):
    """Simultaneous perturbation stochastic approximation: Adam on a gradient seen through two-sided differences.

    Uesato et al. 2018, "Adversarial Risk and the Dangers of Evaluating Against Weak Attacks", arXiv 1802.05666,
    algorithm 1: with v_i in {-1, +1}^D,
        g = mean_i (J(x + delta v_i) - J(x - delta v_i)) / (2 delta) v_i,
    x <- Proj(x + Adam(g)) with Adam at `rate`; J is the margin. No gradient of the model is needed, so a masked
    gradient does not help the defence.

    Cost: `steps` x (2 x `directions` + 1) + 1 queries at most; a sample leaves when it is fooled.
    """

    name = "spsa"
    family = "black box"
    source = "arXiv 1802.05666"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    steps: int = Field(default=100, ge=1, description="Adam iterations; the paper's 100")
    directions: int = Field(default=64, ge=1, description="sign vectors in a gradient; the paper uses 128 to 4096")
    delta: float = Field(default=0.01, gt=0, description="length of a difference, linf in [0,1] image units")
    rate: float = Field(default=0.01, gt=0, description="Adam's learning rate, linf in [0,1] image units")
    loss: LossName = Field(default="margin", description="what is increased: ce, margin, dlr or auto")

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Queries at most, and no gradient."""
        return self.steps * (2 * self.directions + 1) + 1, 0

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] in the ball; the last iterate where none fooled."""
        mean, square = torch.zeros_like(images), torch.zeros_like(images)

        def step(view: Classifier, current: Tensor, rows: Tensor, index: int) -> Tensor:
            draws = rng.select(rows.cpu()).fork("signs", index)
            signs = draws.integers(2, (self.directions, *images.shape[1:]), like=images).to(images.dtype) * 2 - 1
            gradient = antithetic_gradient(view, current, labels[rows], signs, self.delta, self.loss)
            mean[rows] = 0.9 * mean[rows] + 0.1 * gradient
            square[rows] = 0.999 * square[rows] + 0.001 * gradient.square()
            ascent = mean[rows] / (1 - 0.9 ** (index + 1))
            scale = (square[rows] / (1 - 0.999 ** (index + 1))).sqrt() + 1e-8
            return self.threat.project(current + self.rate * ascent / scale, images[rows])

        return descend(classifier, images, labels, images, self.steps, step)
