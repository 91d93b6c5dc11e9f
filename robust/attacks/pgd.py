"""PGD: projected gradient ascent on the loss inside the ball, from random starts."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import FixedBudget, fooled, input_gradient
from robust.attacks.survivors import Ball, Survivors
from robust.classifier import Classifier
from robust.losses import LossName, loss_by_name, margin
from robust.method import Exact
from robust.randomness import Randomness


class PGD(FixedBudget):
    """Projected gradient descent: steepest-ascent steps, each projected back into the ball, from random starts.

    Madry et al. 2018, arXiv 1706.06083, eq. 3.2:  x_{t+1} = Proj_{B(x, eps) and [0,1]} (x_t + a d(grad_x L(f(x_t), y)))
    with d = sign for linf, g/|g|_2 for l2, and the signs of the largest coordinates for l1 (Tramer & Boneh 2019,
    arXiv 1904.13000). A sample leaves the batch at its first misclassified iterate, which is what it gets back.

    Costs at most restarts x (steps + 1) forward and restarts x steps backward passes.
    """

    name: ClassVar[str] = "pgd"
    family: ClassVar[str] = "fixed budget"
    source: ClassVar[str] = "Madry et al. 2018, arXiv 1706.06083"

    steps: int = Field(default=40, ge=1, description="gradient steps of each start")
    step_size: Exact | None = Field(default=None, description="length of a step; 2.5 eps/steps if not given")
    random_start: bool = Field(default=True, description="start at a uniform point of the ball, not at the image")
    restarts: int = Field(default=1, ge=1, description="independent starts; the later ones only for survivors")
    loss: LossName = Field(default="ce", description="ce, margin, dlr, or auto (dlr from 3 classes on, else margin)")
    early_stop: bool = Field(default=True, description="let a sample go once it is misclassified; false to transfer")

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb`; start r is drawn from rng.fork("restart", r)."""
        survivors = Survivors(classifier, images, labels, rng)
        for restart in range(self.restarts):
            if len(survivors):
                self._climb(survivors, survivors.rng.fork("restart", restart), survivors.labels)
        return survivors.best

    def objective(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """The loss [n] to be increased; untargeted attacks ignore `targets`."""
        return loss_by_name(self.loss, logits.shape[1])(logits, labels)

    def _climb(self, survivors: Survivors, rng: Randomness, targets: Tensor) -> None:
        """One run from one start for the standing rows; `targets` [n] goes to the objective."""
        size = 2.5 * self.threat.radius / self.steps if self.step_size is None else float(self.step_size)
        origin = survivors.origin
        x = self.threat.random_start(origin, rng) if self.random_start else origin.clone()
        ball = Ball(self.threat, origin)
        for _ in range(self.steps):
            goal = partial(self.objective, labels=survivors.labels, targets=targets)
            gradient, _, logits = input_gradient(survivors.classifier, x, goal)
            if self.early_stop:
                # the logits that gave the gradient tell who fell: no pass is spent on asking
                fallen = fooled(logits, survivors.labels)
                x, gradient, ball, targets = survivors.fell(fallen, x, gradient, ball, targets)
                if not len(survivors):
                    return
            x = ball.step(x, gradient, size)
        with torch.no_grad():
            logits = survivors.classifier(x)
        survivors.offer(x, margin(logits, survivors.labels))
        if self.early_stop:
            survivors.fell(fooled(logits, survivors.labels), x)

    def passes(self, num_classes: int) -> tuple[int, int]:
        """At most steps + 1 forward and steps backward a restart."""
        return (self.restarts * (self.steps + 1), self.restarts * self.steps)
