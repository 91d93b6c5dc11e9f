"""FMN: a smallest-distance attack for every norm that adapts the radius of a ball to the boundary it finds."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import SmallestDistance, broadcast, fooled, input_gradient
from robust.attacks.nearest import Nearest, unit_ascent
from robust.classifier import Classifier
from robust.losses import margin
from robust.randomness import Randomness
from robust.threat import norm_of

DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


class FMN(SmallestDistance):
    """Fast minimum norm: ascend the margin inside a ball whose radius follows the boundary.

    Pintor et al. 2021, "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints", arXiv 2102.12827,
    algorithm 1. With L = z_y - max_{j != y} z_j, g its gradient and q the dual norm:
        eps <- |delta|_p + |L| / |g|_q              until a first success (distance to the linearised boundary),
        eps <- min((1 - gamma_k) eps, |best|_p)     where the current point is misclassified,
        eps <- (1 + gamma_k) eps                    where it is not, after a success;
        delta <- clip(project_eps(delta - a_k g / |g|_2)).
    a_k and gamma_k fall along a cosine, from `step_size` to a hundredth of it and from `gamma` to 0.001.

    Three changes of ours, for nets on which the original finds nothing or little: until the first success eps grows
    by at least 1 + gamma_k and delta is stretched to the ball's surface (where the box clips the steps, the linearised
    boundary is approached for ever and never crossed); for linf the step is a_k eps sign(g), because an l2 step of
    length one is thin when spread over all pixels; where g is zero the direction is random.

    Cost: `steps` forward and backward passes.
    """

    name = "fmn"
    family = "smallest distance"
    source = "arXiv 2102.12827"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    steps: int = Field(default=100, ge=1, description="iterations")
    gamma: float = Field(default=0.05, gt=0, lt=1, description="first relative change of the radius in a step")
    step_size: float = Field(default=1.0, gt=0, description="first step: l2 length for l2 and l1, in radii for linf")

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
            delta = moved + rate * self._ascent(gradient, radius, rng.fork("flat", step)) - images
            moved = self.threat.project(images + self._stretched(delta, radius, nearest), images, radius)
        return nearest.images

    def _ascent(self, gradient: Tensor, radius: Tensor, rng: Randomness) -> Tensor:
        if self.threat.norm == "linf":
            return broadcast(radius, gradient) * gradient.sign()
        return unit_ascent(gradient, rng)

    def _stretched(self, delta: Tensor, radius: Tensor, nearest: Nearest) -> Tensor:
        """Before the first success the point lies on the ball's surface, so that a growing ball must meet it."""
        factor = (radius / norm_of(delta, self.threat.norm).clamp_min(1e-12)).clamp_min(1.0)
        return broadcast(torch.where(nearest.found, 1.0, factor), delta) * delta

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
