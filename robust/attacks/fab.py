"""FAB: fast adaptive boundary, a smallest-distance attack that walks along the decision boundary."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robust.attacks.boundary_steps import BoundarySteps, relative_distance
from robust.classifier import Classifier
from robust.randomness import Randomness


class FAB(BoundarySteps):
    """Fast adaptive boundary attack: repeated exact projections onto the nearest linearised class boundary.

    Croce & Hein 2020, arXiv 1907.02044, algorithm 1. Each iteration linearises every class boundary, takes the one
    that is nearest in the norm, projects both the iterate and the image onto it inside the box (eq. 4), and moves to
    a biased average of the two; successes are pulled back towards the image. Needs no radius and no step size.

    Costs at most restarts x steps x (2 forward, K backward) passes: for many classes use `fab-t`. With a radius, a
    sample that is found within it is spared the remaining restarts.
    """

    name: ClassVar[str] = "fab"
    family: ClassVar[str] = "smallest distance"
    source: ClassVar[str] = "Croce & Hein 2020, arXiv 1907.02044"

    def minimise(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `SmallestDistance.minimise`; start r > 0 is drawn from rng.fork("restart", r)."""
        if not len(labels):
            return images.clone()
        runs = ((rng.fork("restart", restart), labels, restart) for restart in range(self.restarts))
        return self.nearest_of(classifier, images, labels, runs)

    def boundary(self, classifier: Classifier, x: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest linearised boundary of any other class."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            logits = classifier(leaf)
            classes = range(logits.shape[1])
            gradients = torch.stack(
                [torch.autograd.grad(logits[:, k].sum(), leaf, retain_graph=k != classes[-1])[0] for k in classes], 1
            ).nan_to_num(0.0, 0.0, 0.0)
        logits, rows = logits.detach(), torch.arange(len(x), device=x.device)
        gaps = logits - logits.gather(1, labels[:, None])
        gradients = gradients - gradients[rows, labels][:, None]
        nearness = relative_distance(gaps, gradients, self.threat.norm)
        nearest = nearness.scatter(1, labels[:, None], torch.inf).argmin(1)
        return gaps[rows, nearest], gradients[rows, nearest]

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Two forward and K backward passes a step."""
        return (2 * self.restarts * self.steps + self.final_search, num_classes * self.restarts * self.steps)
