"""HopSkipJump: a decision-based attack that estimates the boundary's normal from yes-or-no answers."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import SmallestDistance, broadcast
from robust.attacks.decision import boundary_start
from robust.attacks.nearest import Nearest, bisect, wrong_at
from robust.classifier import Classifier
from robust.randomness import Randomness
from robust.threat import steepest

PACKED = 64  # queries of a sample in one pass


class HopSkipJump(SmallestDistance):
    """Walks along the decision boundary: estimate its normal, step, bisect back, with labels alone.

    Chen, Jordan & Wainwright 2020, "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack", arXiv 1904.02144,
    algorithm 2. At a boundary point x_t with B_t = B_0 sqrt(t) unit directions u_b and phi = +1 if misclassified, -1 if
    not, the normal is estimated with the mean as a baseline,
        g = 1/(B_t - 1) sum_b (phi(x_t + delta_t u_b) - mean phi) u_b,
    then x <- x_t + xi v with v = g/|g|_2 (l2) or sign g (linf), xi = |x_t - x_0| / sqrt(t) halved until misclassified,
    and bisection to the boundary within theta = d^{-3/2} (l2) or d^{-2} (linf); delta_t is 0.1 at first, then
    sqrt(d) theta |x_t - x_0| (l2) or d theta |x_t - x_0| (linf).

    Cost in queries: about sum_t (B_t + 2 log2(1/theta)); no gradient.
    """

    name = "hopskipjump"
    family = "black box"
    source = "arXiv 1904.02144"
    norms: ClassVar[tuple[str, ...]] = ("l2", "linf")

    steps: int = Field(default=40, ge=1, description="iterations")
    first_queries: int = Field(default=100, ge=2, description="B_0: directions in the first estimate")
    most_queries: int = Field(default=10_000, ge=2, description="directions in an estimate at most")
    tries: int = Field(default=50, ge=1, description="random images tried to find a first misclassified one")

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Queries at most, for images of up to 2^18 values; no gradient."""
        estimates = sum(self._directions(t) for t in range(1, self.steps + 1))
        return self.tries + estimates + (self.steps + 1) * 36 + self.steps * 30, 0

    def minimise(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """The nearest misclassified image met on the boundary, [N,C,H,W]."""
        norm, halvings = self.threat.norm, self._halvings(images[0].numel() if len(images) else 1)
        start, found = boundary_start(classifier, images, labels, rng, norm, self.tries, halvings)
        nearest = Nearest(images, norm)
        nearest.offer(start, found)
        rows = found.nonzero().flatten()
        if not len(rows):
            return images.clone()
        view, origin, truth, draws = classifier.select(rows), images[rows], labels[rows], rng.select(rows.cpu())
        current = start[rows]
        for t in range(1, self.steps + 1):
            distance = self.threat.distance(current, origin).to(images.dtype)
            normal = self._normal(view, current, truth, self._delta(distance, origin, t), draws.fork("step", t), t)
            current = self._step(view, current, truth, normal, distance / math.sqrt(t))
            current = bisect(view, origin, current, truth, norm, halvings)
            nearest.offer(current, torch.ones_like(truth, dtype=torch.bool), rows)
        return nearest.images

    def _directions(self, t: int) -> int:
        return min(self.most_queries, int(self.first_queries * math.sqrt(t)))

    def _halvings(self, pixels: int) -> int:
        """Bisections that reach theta; float32 has no more than 23 bits to halve."""
        return min(23, math.ceil(math.log2(pixels) * (2.0 if self.threat.norm == "linf" else 1.5)))

    def _delta(self, distance: Tensor, origin: Tensor, t: int) -> Tensor:
        if t == 1:
            return torch.full_like(distance, 0.1)
        return distance / origin[0].numel()  # d^{1/2} d^{-3/2} for l2, d d^{-2} for linf

    def _normal(
        self, classifier: Classifier, current: Tensor, labels: Tensor, delta: Tensor, rng: Randomness, t: int
    ) -> Tensor:
        """The estimated direction into the misclassified side, [n,C,H,W], of unit norm."""
        moves, answers = [], []
        left = self._directions(t)
        for block in range(math.ceil(left / PACKED)):
            count = min(PACKED, left - block * PACKED)
            unit = self._unit(rng.fork(block), (count, *current.shape[1:]), current)
            queries = (current[:, None] + broadcast(delta, unit) * unit).clamp(0.0, 1.0)
            wrong = wrong_at(classifier, queries.flatten(0, 1), labels.repeat_interleave(count)).view(-1, count)
            # the clip may have changed the direction: use the one that was asked about
            moves.append((queries - current[:, None]) / broadcast(delta, unit))
            answers.append(wrong.to(current.dtype) * 2 - 1)
        phi = torch.cat(answers, 1)
        mean = phi.mean(1, keepdim=True)
        phi = torch.where(mean.abs() == 1, phi, phi - mean)  # all alike: the plain mean direction, as in the paper
        return steepest(torch.einsum("nb,nbchw->nchw", phi, torch.cat(moves, 1)), "l2")

    def _unit(self, rng: Randomness, shape: tuple[int, ...], like: Tensor) -> Tensor:
        draw = rng.normal(shape, like=like) if self.threat.norm == "l2" else rng.uniform(shape, -1.0, 1.0, like=like)
        return steepest(draw.flatten(0, 1), "l2").view_as(draw)

    def _step(self, classifier: Classifier, current: Tensor, labels: Tensor, normal: Tensor, size: Tensor) -> Tensor:
        """The longest of xi, xi/2, xi/4... that stays misclassified; no step where none of 30 does."""
        direction = normal.sign() if self.threat.norm == "linf" else normal
        moved = current.clone()
        rows = torch.arange(len(current), device=current.device)
        for halved in range(30):
            length = broadcast(size[rows] / 2**halved, current)
            candidate = (current[rows] + length * direction[rows]).clamp(0.0, 1.0)
            wrong = wrong_at(classifier.select(rows), candidate, labels[rows])
            moved[rows[wrong]] = candidate[wrong]
            rows = rows[~wrong]
            if not len(rows):
                break
        return moved
