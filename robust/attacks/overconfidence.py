"""Overconfidence: the attack that calibration has to withstand, a wrong answer with as much confidence as can be."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import FixedBudget, fooled, input_gradient
from robust.attacks.survivors import Ball, Survivors
from robust.classifier import Classifier
from robust.losses import best_other
from robust.method import Exact
from robust.randomness import Randomness


class Overconfidence(FixedBudget):
    """Projected ascent on the log-probability of the likeliest wrong class, which goes on after the class has flipped.

        x_{t+1} = Proj (x_t + a d(grad_x max_{k != y} log softmax(z)_k))

    (high-confidence adversarial examples of Carlini & Wagner 2017, arXiv 1705.07263, section 6, read as a fixed-budget
    attack). An accuracy attack stops at the border of two classes, where every classifier is in doubt; calibration
    and detection measured there look better than they are. A sample gets back its most confidently wrong iterate, or
    the iterate nearest to a wrong answer where none was found. The last quarter of the steps have half the length.

    Costs at most restarts x (steps + 1) forward and restarts x steps backward passes; no sample leaves early.
    """

    name: ClassVar[str] = "overconfidence"
    family: ClassVar[str] = "confidence"
    source: ClassVar[str] = "after Carlini & Wagner 2017, arXiv 1705.07263"

    steps: int = Field(default=40, ge=1, description="gradient steps of each start")
    step_size: Exact | None = Field(default=None, description="length of the first steps; 2.5 eps/steps if not given")
    restarts: int = Field(default=1, ge=1, description="independent starts, all of them for every sample")

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb`; start r is drawn from rng.fork("restart", r)."""
        kept = Survivors(classifier, images, labels, rng)
        ball = Ball(self.threat, images)
        first = 2.5 * self.threat.radius / self.steps if self.step_size is None else float(self.step_size)
        for restart in range(self.restarts):
            x = self.threat.random_start(images, rng.fork("restart", restart))
            for step in range(self.steps):
                gradient, confidence, logits = input_gradient(classifier, x, lambda z: wrong_confidence(z, labels))
                kept.offer(x, ranked(confidence, logits, labels))
                x = ball.step(x.clone(), gradient, first if 4 * step < 3 * self.steps else first / 2)
            with torch.no_grad():
                logits = classifier(x)
            kept.offer(x, ranked(wrong_confidence(logits, labels), logits, labels))
        return kept.best

    def passes(self, num_classes: int) -> tuple[int, int]:
        """At most steps + 1 forward and steps backward a restart."""
        return (self.restarts * (self.steps + 1), self.restarts * self.steps)


def wrong_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{k != y} log softmax(z)_k, [N], at most 0."""
    return best_other(logits, labels) - logits.logsumexp(1)


def ranked(confidence: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Confidences [N] in an order in which every wrong answer comes before every right one."""
    return torch.where(fooled(logits, labels), confidence.exp(), confidence)
