"""FMN: a smallest-distance attack for every norm that adapts the radius of a ball to the boundary it finds."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import SmallestDistance, fooled, input_gradient
from robust.attacks.nearest import Nearest
from robust.classifier import Classifier
from robust.losses import margin
from robust.randomness import Randomness
from robust.threat import norm_of, steepest

DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


class FMN(SmallestDistance):
    """Fast minimum norm: ascend the margin inside a ball whose radius follows the boundary.

    Pintor et al. 2021, "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints", arXiv 2102.12827,
    algorithm 1. With L = z_y - max_{j != y} z_j, g its gradient and q the dual norm:
        eps <- max(|delta|_p + |L| / |g|_q, (1 + gamma_k) eps)   until a first success (the linearised boundary),
        eps <- min((1 - gamma_k) eps, |best|_p)     where the current point is misclassified,
        eps <- (1 + gamma_k) eps                    where it is not, after a success;
        delta <- clip(project_eps(delta - a_k g / |g|_2)).
    The second term of the first line is ours: where the box clips the step, the linearised boundary alone is approached
    for ever and never crossed. a_k and gamma_k fall along a cosine, from `step_size` to a hundredth of it and from `gamma` to 0.001.

    Cost: `steps` forward and backward passes.
    """

    name = "fmn"
    family = "smallest distance"
    source = "arXiv 2102.12827"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    steps: int = Field(default=100, ge=1, description="iterations")
    gamma: float = Field(default=0.05, gt=0, lt=1, description="first relative change of the radius in a step")
    step_size: float = Field(default=1.0, gt=0, description="first step, l2 in [0,1] image units for every norm")

    def passes(self, num_classes: int) -> tuple[int, int]:
        """`steps` of each."""
        return self.steps, self.steps

    def minimise(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """The nearest misclassified image seen, [N,C,H,W]."""
        nearest = Nearest(images, self.threat.norm)
        moved, radius = images, images.new_full((len(images),), torch.inf)
        farthest = norm_of(torch.maximum(images, 1 - images), self.threat.norm)
        for step in range(self.steps):
            gradient, gap, logits = input_gradient(classifier, moved, lambda z: margin(z, labels))
            wrong = fooled(logits, labels)
            nearest.offer(moved, wrong)
            change = self._annealed(self.gamma, 0.001, step)
            radius = self._radius(radius, change, wrong, nearest, moved, gap, gradient)
            radius = torch.minimum(radius, farthest)
            rate = self._annealed(self.step_size, self.step_size / 100, step)
            moved = self.threat.project(moved + rate * steepest(gradient, "l2"), images, radius)
        return nearest.images

    def _radius(
        self,
        radius: Tensor,
        change: float,
        wrong: Tensor,
        nearest: Nearest,
        moved: Tensor,
        gap: Tensor,
        gradient: Tensor,
    ) -> Tensor:
        norm = self.threat.norm
        to_boundary = gap.abs() / norm_of(gradient, DUAL[norm]).clamp_min(torch.finfo(gap.dtype).tiny)
        linearised = norm_of(moved - nearest.origin, norm) + to_boundary
        grown = torch.where(radius.isinf(), 0.0, radius * (1 + change))
        outside = torch.where(nearest.found, grown, torch.maximum(linearised, grown))
        return torch.where(wrong, torch.minimum(radius * (1 - change), nearest.distance), outside)

    def _annealed(self, first: float, last: float, step: int) -> float:
        return last + (first - last) * (1 + math.cos(math.pi * step / self.steps)) / 2
