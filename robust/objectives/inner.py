"""The inner maximisation of adversarial training: projected gradient steps on a batch, shared by PGD-AT and TRADES.

The attack runs in eval mode with the weights frozen: running averages of BatchNorm neither move nor mix samples, so
an image's perturbation does not depend on its batch, and no gradient reaches a weight. Random starts belong to the
sample and the epoch.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from robust.attacks.attack import input_gradient
from robust.classifier import Classifier
from robust.losses import Loss as PerSampleLoss
from robust.losses import cross_entropy
from robust.method import Exact, exact
from robust.objectives.objective import Objective
from robust.randomness import Randomness
from robust.threat import Norm, ThreatModel


class Adversarial(Objective):
    """Base of objectives that train on images attacked on the fly: x' = argmax over the ball of a loss.

    x^(t+1) = P(x^t + a d(grad L)) with d the steepest direction of the norm and P the projection onto the ball and
    the box (Madry et al. 2018, arXiv 1706.06083, eq. 2.1 and section 2.1). Over the first `warmup` of the training,
    eps and the step grow linearly from 0: a network from scratch under its full radius (0.3 on MNIST) can get stuck
    on one constant prediction.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    norm: Norm = Field(default="linf", description="the ball's norm, over all of C, H, W")
    eps: Exact = Field(default=exact("8/255"), gt=0, description="the ball's radius in [0,1] image units")
    steps: int = Field(default=10, ge=1, description="gradient steps of the inner attack")
    step_size: Exact | None = Field(default=None, gt=0, description="length of a step; 2.5 eps / steps when empty")
    random_start: bool = Field(default=True, description="start at a random point of the ball, else at the image")
    warmup: float = Field(default=0.3, ge=0, le=1, description="share of the training over which eps grows from 0")

    @model_validator(mode="after")
    def _radius_fits_the_box(self) -> Adversarial:
        _ = self.threat
        return self

    @property
    def threat(self) -> ThreatModel:
        """The ball trained against."""
        return ThreatModel(norm=self.norm, eps=self.eps)

    def ramp(self, progress: float) -> float:
        """Share of eps in force when `progress` of the training is over, in [0,1]."""
        return min(1.0, progress / self.warmup) if self.warmup else 1.0

    def starting_point(self, images: Tensor, rng: Randomness, ramp: float) -> Tensor:
        """Where the inner attack starts, [N,C,H,W]."""
        if not self.random_start:
            return images
        return images + ramp * (self.threat.random_start(images, rng) - images)

    def maximise(
        self, classifier: Classifier, images: Tensor, loss: PerSampleLoss, target: Tensor, rng: Randomness, ramp: float
    ) -> Tensor:
        """Images [N,C,H,W] in the ball of radius ramp * eps that make `loss(logits, target)` large.

        Args:
            classifier: in any mode; returned as it came.
            images: [N,C,H,W] in [0,1].
            loss: logits [N,K] and target -> [N].
            target: labels [N], or whatever the loss compares with.
            rng: randomness of these samples in this epoch.
            ramp: share of eps in force.

        Cost: `steps` forward and backward passes an image.
        """
        radius = ramp * float(self.eps)
        step = ramp * (float(self.step_size) if self.step_size else 2.5 * float(self.eps) / self.steps)
        attacked = self.starting_point(images, rng, ramp)
        with classifier.frozen():
            for _ in range(self.steps):
                gradient, _, _ = input_gradient(classifier, attacked, lambda logits: loss(logits, target))
                attacked = self.threat.project(attacked + step * self.threat.steepest(gradient), images, radius)
        return attacked.detach()

    def selection(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Right under the objective's own inner attack with cross-entropy at full eps, [N] bool."""
        attacked = self.maximise(classifier, images, cross_entropy, labels, rng, ramp=1.0)
        with torch.no_grad():
            right: Tensor = classifier(attacked).argmax(1) == labels
        return right
