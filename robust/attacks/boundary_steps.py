"""The iteration shared by `fab` and `fab-t`: walk along the linearised decision boundary, biased to the image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import SmallestDistance, broadcast, fooled
from robust.attacks.hyperplane import project_to_hyperplane
from robust.classifier import Classifier
from robust.randomness import Randomness
from robust.threat import norm_of

# radius of the random restarts where the threat model has none (the official code's choice for small images)
RESTART_RADIUS = {"linf": 0.3, "l2": 1.0, "l1": 5.0}
DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


class BoundarySteps(SmallestDistance):
    """Base of the FAB attacks: everything but which class boundary is approached."""

    steps: int = Field(default=100, ge=1, description="iterations of each start")
    restarts: int = Field(default=1, ge=1, description="the first start is the image, the others random")
    bias: float = Field(default=0.1, ge=0, le=1, description="alpha_max: largest weight of the image's own projection")
    overshoot: float = Field(default=1.05, ge=1, description="eta: how far past the boundary a step goes")
    retreat: float = Field(default=0.9, gt=0, lt=1, description="beta: share of the perturbation kept after a success")
    final_search: int = Field(default=10, ge=0, description="halvings of the segment to the image at the end")

    @abstractmethod
    def boundary(self, classifier: Classifier, x: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Linearised boundary: z_other - z_label [n] and its gradient [n,C,H,W], for the class to be approached."""

    def nearest_of(
        self, classifier: Classifier, images: Tensor, labels: Tensor, runs: Iterable[tuple[Randomness, Tensor, int]]
    ) -> Tensor:
        """The nearest finds [N,C,H,W] of several runs, each given by (rng, targets [N], restart), after a last search.

        Where the threat model has a radius, a sample that is within it is spared the remaining runs.
        """
        best, distance = images.clone(), images.new_full((len(labels),), torch.inf)
        rows = torch.arange(len(labels), device=images.device)
        for rng, targets, restart in runs:
            if not len(rows):
                break
            view, draws = classifier.select(rows), rng.select(rows.cpu())
            found, length = self.walk(view, images[rows], labels[rows], draws, targets[rows], restart)
            nearer = length < distance[rows]
            best[rows[nearer]], distance[rows[nearer]] = found[nearer], length[nearer]
            if self.threat.eps is not None:
                rows = rows[distance[rows] > self.threat.radius]
        return self.refine(classifier, best, images, labels)

    def walk(
        self, classifier: Classifier, origin: Tensor, labels: Tensor, rng: Randomness, targets: Tensor, restart: int
    ) -> tuple[Tensor, Tensor]:
        """One run: the nearest misclassified images found [n,C,H,W], and their distances [n], inf without any."""
        best, distance = origin.clone(), origin.new_full((len(labels),), torch.inf)
        x = self._start(origin, rng) if restart else origin.clone()
        for _ in range(self.steps):
            gap, gradient = self.boundary(classifier, x, labels, targets)
            x = self._step(x, origin, gap, gradient)
            with torch.no_grad():
                fell = fooled(classifier(x), labels)
            length = norm_of(x - origin, self.threat.norm)
            nearer = fell & (length < distance)
            best = torch.where(broadcast(nearer, x), x, best)
            distance = torch.where(nearer, length, distance)
            x = torch.where(broadcast(fell, x), origin + (x - origin) * self.retreat, x)
        return best, distance

    def _step(self, x: Tensor, origin: Tensor, gap: Tensor, gradient: Tensor) -> Tensor:
        """x' = (1 - a)(x + eta d) + a (origin + eta d0), with both projections onto the same plane (eq. 9)."""
        n, norm, w = len(x), self.threat.norm, gradient.flatten(1)
        at_origin = gap + (w * (origin - x).flatten(1)).sum(1)
        both = torch.cat([x, origin]).flatten(1)
        moves = project_to_hyperplane(both, torch.cat([w, w]), torch.cat([gap, at_origin]), norm)
        lengths = norm_of(moves, norm).clamp_min(1e-8)
        alpha = broadcast((lengths[:n] / (lengths[:n] + lengths[n:])).clamp_max(self.bias), x)
        d, d0 = moves[:n].view_as(x), moves[n:].view_as(x)
        return ((1 - alpha) * (x + self.overshoot * d) + alpha * (origin + self.overshoot * d0)).clamp_(0, 1)

    def _start(self, origin: Tensor, rng: Randomness) -> Tensor:
        """A random point at half the radius (section 3.3)."""
        norm, draw = self.threat.norm, rng.fork("start")
        radius = RESTART_RADIUS[norm] if self.threat.eps is None else self.threat.radius
        shape = origin.shape[1:]
        delta = draw.uniform(shape, -1.0, 1.0, like=origin) if norm == "linf" else draw.normal(shape, like=origin)
        delta = delta / broadcast(norm_of(delta, norm).clamp_min(1e-12), delta)
        return (origin + 0.5 * radius * delta).clamp_(0, 1)

    def refine(self, classifier: Classifier, best: Tensor, origin: Tensor, labels: Tensor) -> Tensor:
        """Bisect the segment from the image to the found point: the final search of section 3.4."""
        low, high = best.new_zeros(len(best)), best.new_ones(len(best))
        for _ in range(self.final_search):
            middle = (low + high) / 2
            x = origin + broadcast(middle, best) * (best - origin)
            with torch.no_grad():
                fell = fooled(classifier(x), labels)
            low, high = torch.where(fell, low, middle), torch.where(fell, middle, high)
        return origin + broadcast(high, best) * (best - origin)


def relative_distance(gaps: Tensor, gradients: Tensor, norm: str) -> Tensor:
    """Distance of each linearised class boundary, [n,K]: |gap| / |gradient|_q with q dual to the norm."""
    n, k = gaps.shape
    return gaps.abs() / (norm_of(gradients.flatten(0, 1), DUAL[norm]).view(n, k) + 1e-12)
