"""DeepFool: the nearest boundary of the linearised classifier, step by step."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import SmallestDistance, broadcast, fooled
from robust.attacks.nearest import Nearest, bisect, wrong_at
from robust.classifier import Classifier
from robust.randomness import Randomness
from robust.threat import norm_of, steepest

PAST = 1e-4  # added to every step: on a curved or clipped path the steps alone approach the boundary without crossing


class DeepFool(SmallestDistance):
    """Steps to the nearest hyperplane of the linearised classifier until the prediction changes.

    Moosavi-Dezfooli et al. 2016, "DeepFool: a simple and accurate method to fool deep neural networks", arXiv
    1511.04599, algorithm 2 (l2) and eq. 11 (linf). With f_k = z_k - z_y and w_k its gradient at the current point,
        l = argmin_k |f_k| / |w_k|_q,   x <- clip(x + (1 + overshoot) |f_l| / |w_l|_q * d),
    where q is the dual norm and d the unit direction of steepest ascent of f_l (w/|w|_2 for l2, sign w for linf).
    The paper knows no box: for the samples that the clip keeps from crossing, coordinates at the wall are held from
    half of the steps on. What the last step went too far is taken back by `bisections` halvings.

    Cost: at most `steps` + 1 + `bisections` forward passes and `steps` x (`candidates` - 1) backward passes; a sample
    leaves the batch when it is fooled.
    """

    name = "deepfool"
    family = "smallest distance"
    source = "arXiv 1511.04599"
    norms: ClassVar[tuple[str, ...]] = ("l2", "linf")

    steps: int = Field(default=50, ge=1, description="linearisations at most")
    candidates: int = Field(default=10, ge=2, description="classes considered: the most likely at the original")
    overshoot: float = Field(default=0.02, ge=0, description="share by which each point goes past the boundary")
    bisections: int = Field(default=10, ge=0, description="halvings that take the overshoot back")

    def passes(self, num_classes: int) -> tuple[int, int]:
        """At most; samples leave when they are fooled."""
        return self.steps + 1 + self.bisections, self.steps * (min(self.candidates, num_classes) - 1)

    def minimise(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Misclassified images near `images`, [N,C,H,W]; the original where `steps` did not suffice."""
        nearest = Nearest(images, self.threat.norm)
        active = torch.arange(len(images), device=images.device)
        moved, rivals = images.clone(), None
        for taken in range(self.steps):
            logits, leaf = self._forward(classifier.select(active), moved[active])
            if rivals is None:
                rivals = self._rivals(logits.detach(), labels)
            wrong = fooled(logits.detach(), labels[active])
            nearest.offer(moved[active], wrong, active)
            step = self._step(logits, leaf, labels[active], rivals[active], hold=2 * taken >= self.steps)
            active, step = active[~wrong], step[~wrong]
            if not len(active):
                break
            moved[active] = (moved[active] + (1 + self.overshoot) * step).clamp(0.0, 1.0)
        if len(active):
            nearest.offer(moved[active], wrong_at(classifier.select(active), moved[active], labels[active]), active)
        return self._taken_back(classifier, nearest, labels)

    @staticmethod
    def _forward(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = images.detach().requires_grad_(True)
            return classifier(leaf), leaf

    def _rivals(self, logits: Tensor, labels: Tensor) -> Tensor:
        others = logits.scatter(1, labels[:, None], -torch.inf)
        return others.topk(min(self.candidates, logits.shape[1]) - 1, dim=1).indices

    def _step(self, logits: Tensor, leaf: Tensor, labels: Tensor, rivals: Tensor, hold: bool) -> Tensor:
        """The shortest step [n,C,H,W] that reaches a rival's hyperplane."""
        dual = {"l2": "l2", "linf": "l1"}[self.threat.norm]
        own = logits.gather(1, labels[:, None])
        gaps = logits.gather(1, rivals) - own
        shortest = leaf.new_full((len(leaf),), torch.inf)
        step = torch.zeros_like(leaf)
        for rank in range(rivals.shape[1]):
            last = rank == rivals.shape[1] - 1
            (slope,) = torch.autograd.grad(gaps[:, rank].sum(), leaf, retain_graph=not last)
            if hold:
                slope = slope.masked_fill(_at_the_wall(leaf.detach(), slope), 0.0)
            length = gaps[:, rank].detach().abs() / norm_of(slope, dual) + PAST
            nearer = length < shortest  # a flat or non-finite slope gives inf or nan and never wins
            shortest = torch.where(nearer, length, shortest)
            taken = broadcast(length, leaf) * steepest(slope, self.threat.norm)
            step = torch.where(broadcast(nearer, leaf), taken, step)
        return step.detach()

    def _taken_back(self, classifier: Classifier, nearest: Nearest, labels: Tensor) -> Tensor:
        found = nearest.found
        if self.bisections and found.any():
            view = classifier.select(found)
            origin, images = nearest.origin[found], nearest.images[found]
            nearest.images[found] = bisect(view, origin, images, labels[found], self.threat.norm, self.bisections)
        return nearest.images


def _at_the_wall(images: Tensor, slope: Tensor) -> Tensor:
    """Coordinates that the step would push out of the box: the clip undoes them, so they must not count as progress."""
    return ((images <= 0) & (slope < 0)) | ((images >= 1) & (slope > 0))
