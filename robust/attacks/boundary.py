"""Boundary attack: a decision-based random walk along the boundary, toward the original image."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import SmallestDistance, broadcast
from robust.attacks.decision import boundary_start
from robust.attacks.nearest import Nearest, wrong_at
from robust.classifier import Classifier
from robust.randomness import Randomness
from robust.threat import norm_of, steepest

BLOCK = 32  # steps whose noise is drawn at once


class Boundary(SmallestDistance):
    """Rejection sampling near the boundary: a step on the sphere around the original, then a step inward.

    Brendel, Rauber & Bethge 2018, "Decision-Based Adversarial Attacks: Reliable Attacks Against Black-Box Machine
    Learning Models", arXiv 1712.04248, algorithm 1 and figure 2. With d = |x - x_0|_2: propose
        x' = x_0 + d (x + delta d u - x_0) / |x + delta d u - x_0|_2,  u a random unit vector orthogonal to x - x_0,
    then x'' = x' - epsilon d (x' - x_0) / |x' - x_0|_2, and go to x'' where it is still misclassified. delta adapts so
    that half of the x' are misclassified, epsilon so that a quarter of the x'' are. The walk starts on the boundary.

    Cost: two queries a step; no gradient.
    """

    name = "boundary"
    family = "black box"
    source = "arXiv 1712.04248"
    norms: ClassVar[tuple[str, ...]] = ("l2",)

    steps: int = Field(default=5000, ge=1, description="proposals; the authors run 25,000 and more")
    spherical: float = Field(default=0.1, gt=0, description="first delta, relative to the distance")
    inward: float = Field(default=0.01, gt=0, lt=1, description="first epsilon, relative to the distance")
    adaptation: float = Field(default=1.5, gt=1, description="factor by which delta and epsilon change")
    window: int = Field(default=20, ge=2, description="steps between two adaptations")
    tries: int = Field(default=50, ge=1, description="random images tried to find a first misclassified one")

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Queries at most; no gradient."""
        return self.tries + 12 + 2 * self.steps, 0

    def minimise(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """The nearest misclassified image of the walk, [N,C,H,W]."""
        start, found = boundary_start(classifier, images, labels, rng, "l2", self.tries, halvings=12)
        nearest = Nearest(images, "l2")
        nearest.offer(start, found)
        rows = found.nonzero().flatten()
        if len(rows):
            walk = _Walk(start[rows], images[rows], labels[rows], self)
            view, draws = classifier.select(rows), rng.select(rows.cpu())
            for step in range(self.steps):
                if step % BLOCK == 0:
                    count = min(BLOCK, self.steps - step)
                    noise = draws.fork("walk", step).normal((count, *images.shape[1:]), like=images)
                walk.propose(view, noise[:, step % BLOCK])
                if (step + 1) % self.window == 0:
                    walk.adapt()
            nearest.offer(walk.point, torch.ones_like(walk.labels, dtype=torch.bool), rows)
        return nearest.images


class _Walk:
    """The walkers' points, step sizes and success counts."""

    def __init__(self, point: Tensor, origin: Tensor, labels: Tensor, attack: Boundary) -> None:
        self.point, self.origin, self.labels = point, origin, labels
        self.attack = attack
        self.spherical = origin.new_full((len(origin),), attack.spherical)
        self.inward = origin.new_full((len(origin),), attack.inward)
        self._stayed, self._accepted = torch.zeros_like(self.spherical), torch.zeros_like(self.spherical)

    def propose(self, classifier: Classifier, noise: Tensor) -> None:
        """One step of every walker."""
        away = self.point - self.origin
        distance, outward = norm_of(away, "l2"), steepest(away, "l2")
        along = broadcast((noise * outward).flatten(1).sum(1), noise)
        move = broadcast(self.spherical * distance, noise) * steepest(noise - along * outward, "l2")
        sphere = self.origin + broadcast(distance, noise) * steepest(away + move, "l2")
        sphere = sphere.clamp(0.0, 1.0)
        on_sphere = wrong_at(classifier, sphere, self.labels)
        nearer = (self.origin + broadcast(1 - self.inward, noise) * (sphere - self.origin)).clamp(0.0, 1.0)
        accepted = wrong_at(classifier, nearer, self.labels) & on_sphere
        accepted &= norm_of(nearer - self.origin, "l2") < distance
        self.point = torch.where(broadcast(accepted, noise), nearer, self.point)
        self._stayed += on_sphere.to(noise.dtype)
        self._accepted += accepted.to(noise.dtype)

    def adapt(self) -> None:
        """Longer steps where more than the wanted share succeeded, shorter ones where fewer did."""
        factor, window = self.attack.adaptation, self.attack.window
        stayed, accepted = self._stayed / window, self._accepted / window
        self.spherical = self.spherical * torch.where(stayed > 0.5, factor, 1 / factor)
        self.inward = (self.inward * torch.where(accepted > 0.25, factor, 1 / factor)).clamp_max(0.5)
        self._stayed.zero_()
        self._accepted.zero_()
