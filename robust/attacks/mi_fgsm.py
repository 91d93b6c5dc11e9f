"""MI-FGSM: iterated signed steps along an accumulated gradient, made to transfer between models."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import FixedBudget, broadcast, input_gradient
from robust.attacks.survivors import Ball
from robust.classifier import Classifier
from robust.losses import LossName, loss_by_name
from robust.method import Exact
from robust.randomness import Randomness
from robust.threat import norm_of


class MIFGSM(FixedBudget):
    """Momentum iterative FGSM: steps along a decaying sum of l1-normalised gradients, for transfer between models.

    Dong et al. 2018, arXiv 1710.06081, eq. 6-7:  g_{t+1} = mu g_t + grad / |grad|_1,  x_{t+1} = x_t + a d(g_{t+1}).
    Takes all its steps whether or not the sample has fallen, because an image deep in the wrong class transfers
    better than the first one across the boundary. Costs steps x (1 forward, 1 backward) passes.
    """

    name: ClassVar[str] = "mi-fgsm"
    family: ClassVar[str] = "transfer"
    source: ClassVar[str] = "Dong et al. 2018, arXiv 1710.06081"

    steps: int = Field(default=10, ge=1, description="gradient steps")
    step_size: Exact | None = Field(default=None, description="length of a step; eps/steps if not given")
    decay: float = Field(default=1.0, ge=0, description="mu: weight of the accumulated gradient")
    loss: LossName = Field(default="ce", description="ce, margin, dlr, or auto (dlr from 3 classes on, else margin)")

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb`; step t draws from rng.fork("step", t)."""
        size = self.threat.radius / self.steps if self.step_size is None else float(self.step_size)
        x, ball, memory = images.clone(), Ball(self.threat, images), torch.zeros_like(images)
        for step in range(self.steps if len(labels) else 0):
            gradient = self.gradient(classifier, x, labels, rng.fork("step", step))
            memory = self.decay * memory + gradient / broadcast(norm_of(gradient, "l1").clamp_min(1e-30), gradient)
            x = ball.step(x, memory, size)
        return x

    def gradient(self, classifier: Classifier, x: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Gradient of the loss with respect to the images, [N,C,H,W]: what the members of this family change."""
        loss = self.loss
        return input_gradient(classifier, x, lambda z: loss_by_name(loss, z.shape[1])(z, labels))[0]

    def passes(self, num_classes: int) -> tuple[int, int]:
        """One of each a step."""
        return (self.steps, self.steps)
