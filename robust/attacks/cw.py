"""CW: Carlini and Wagner's l2 attack, distance and margin traded by a constant that is searched for each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import SmallestDistance, fooled, input_gradient
from robust.attacks.decision import boundary_start
from robust.attacks.nearest import Nearest
from robust.classifier import Classifier
from robust.losses import margin
from robust.randomness import Randomness

INSIDE = 1 - 1e-3  # keeps arctanh finite at the walls of the box, and black pixels within Adam's reach
TRIES, HALVINGS = 10, 10  # to find a start on the boundary


class CW(SmallestDistance):
    """Minimises |x - x_0|_2^2 + c max(z_y - max_{j != y} z_j + kappa, 0) in tanh space with Adam.

    Carlini & Wagner 2017, "Towards Evaluating the Robustness of Neural Networks", arXiv 1608.04644, section V-VI with
    objective f_6: x = (tanh w + 1) / 2 keeps the box, and c is found for each sample by `searches` rounds of
    multiplication by 10, then bisection. A sample leaves a round early when its objective has not fallen by 0.01 %
    over a tenth of the steps, the authors' abort rule applied to samples instead of batches. A last round (c = 1)
    starts where the line to a misclassified image (negative or noise) meets the boundary: where the hinge is flat or
    misleading around the image, as after adversarial training, only a huge c leaves it, and lands far away.

    Adam moves a pixel by about `rate` a step, and between black and white lie 2 arctanh(0.999) = 7.6 units of w: the
    authors' rate 0.01 needs their 1,000 steps and more. With fewer, the default is 10 / `steps`, at most 0.1.

    Cost: at most (`searches` + 1) x `steps` forward and backward passes.
    """

    name = "cw"
    family = "smallest distance"
    source = "arXiv 1608.04644"
    norms: ClassVar[tuple[str, ...]] = ("l2",)

    steps: int = Field(default=1000, ge=1, description="Adam iterations in a round; the authors use up to 10,000")
    searches: int = Field(default=9, ge=1, description="rounds of the search for c")
    constant: float = Field(default=1e-3, gt=0, description="first c")
    rate: float | None = Field(
        default=None, gt=0, description="Adam's, in tanh space; 10/steps in [0.01, 0.1] if not given"
    )
    confidence: float = Field(default=0.0, ge=0, description="kappa: logit gap asked for inside the objective")
    abort_early: bool = Field(default=True, description="whether a sample whose objective stalls leaves the round")

    def passes(self, num_classes: int) -> tuple[int, int]:
        """At most; stalled samples leave early."""
        return (self.searches + 1) * self.steps + TRIES + HALVINGS, (self.searches + 1) * self.steps

    def minimise(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """The nearest misclassified image seen, [N,C,H,W]."""
        nearest = Nearest(images, "l2")
        everyone = torch.arange(len(images), device=images.device)
        low = images.new_zeros(len(images))
        high, constant = torch.full_like(low, torch.inf), torch.full_like(low, self.constant)
        for _ in range(self.searches):
            found = self._descend(_Round(classifier, nearest, labels, constant, everyone), images)
            low = torch.where(found, low, constant)
            high = torch.where(found, constant, high)
            constant = torch.where(high.isfinite(), (low + high) / 2, constant * 10)
        start, _ = boundary_start(classifier, images, labels, rng, "l2", TRIES, HALVINGS)
        # c = 1, not the last c of the search: there the hinge would drown the distance in Adam's second moment
        self._descend(_Round(classifier, nearest, labels, torch.ones_like(constant), everyone), start)
        return nearest.images

    def _descend(self, objective: _Round, start: Tensor) -> Tensor:
        """One round at fixed c; offers every success to `nearest` and returns which samples had one, [n]."""
        found = torch.zeros_like(objective.rows, dtype=torch.bool)
        active = torch.arange(len(start), device=start.device)
        rate = min(max(10 / self.steps, 0.01), 0.1) if self.rate is None else self.rate
        state = _Adam(torch.atanh((start * 2 - 1) * INSIDE), rate)
        last = start.new_full((len(start),), torch.inf)
        for step in range(self.steps):
            moved = (state.point.tanh() + 1) / 2
            gradient, cost, wrong = objective.cost(moved, active, self.confidence)
            found[active] |= wrong
            if self.abort_early and step % max(1, self.steps // 10) == 0:
                going = cost < 0.9999 * last[active]
                last[active] = cost
                active, gradient, moved = active[going], gradient[going], moved[going]
                state.keep(going)
                if not len(active):
                    break
            state.descend(gradient * 2 * moved * (1 - moved))  # dx/dw = (1 - tanh^2 w) / 2
        return found


@dataclass(frozen=True)
class _Round:
    """The objective of some rows of the batch at fixed c; every success on the way is offered to `nearest`."""

    classifier: Classifier
    nearest: Nearest
    labels: Tensor
    constant: Tensor
    rows: Tensor

    def cost(self, moved: Tensor, active: Tensor, confidence: float) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient [n,C,H,W] to x, value [n], and whether each of the active rows is misclassified, [n]."""
        rows = self.rows[active]
        labels, constant = self.labels[rows], self.constant[rows]

        def hinge(logits: Tensor) -> Tensor:
            return constant * (confidence - margin(logits, labels)).clamp_min(0)

        gradient, penalty, logits = input_gradient(self.classifier.select(rows), moved, hinge)
        wrong = fooled(logits, labels)
        self.nearest.offer(moved, wrong, rows)
        delta = moved - self.nearest.origin[rows]
        return gradient + 2 * delta, delta.flatten(1).square().sum(1) + penalty, wrong


class _Adam:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980) on a batch whose samples leave one by one."""

    def __init__(self, point: Tensor, rate: float) -> None:
        self.point, self.rate, self.step = point, rate, 0
        self.mean, self.square = torch.zeros_like(point), torch.zeros_like(point)

    def descend(self, gradient: Tensor) -> None:
        self.step += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient.square()
        mean, square = self.mean / (1 - 0.9**self.step), self.square / (1 - 0.999**self.step)
        self.point = self.point - self.rate * mean / (square.sqrt() + 1e-8)

    def keep(self, rows: Tensor) -> None:
        self.point, self.mean, self.square = self.point[rows], self.mean[rows], self.square[rows]
