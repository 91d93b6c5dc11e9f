"""Universal perturbation: one perturbation for all images, fitted on data that is not evaluated."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from robust.attacks.attack import Attack, Context, FixedBudget, input_gradient
from robust.classifier import Classifier
from robust.losses import margin
from robust.randomness import Randomness, generator


class Universal(FixedBudget):
    """Adds one perturbation, the same for every image, that was made to fool as many others as possible.

    Moosavi-Dezfooli et al. 2017, "Universal adversarial perturbations", arXiv 1610.08401; fitted by the stochastic
    ascent of Shafahi et al. 2020, arXiv 1811.11304, algorithm 2: over batches of the preparation data
        v <- Proj_eps(v + a d(sum_i grad_v min(margin(f(x_i + v), y_i), `clamp`))),
    where the clamp keeps a few images that are easily fooled from deciding the direction. The perturbation depends on
    the preparation data alone, so the evaluated images meet it whatever batch they travel in.

    `bind` fits it: `Universal(...).bind(classifier, Context(images=..., labels=...))`.

    Cost: no pass over the evaluated images.
    """

    name = "universal"
    family = "fixed budget"
    source = "arXiv 1610.08401"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    needs: ClassVar[tuple[str, ...]] = ("data",)

    epochs: int = Field(default=10, ge=1, description="passes over the preparation data")
    batch_size: int = Field(default=100, ge=1, description="preparation images in a step")
    step_size: float = Field(
        default=0.1, gt=0, description="length of a step in radii; falls linearly to a tenth of it"
    )
    clamp: float = Field(default=1.0, gt=0, description="margin beyond which a fooled image no longer counts")
    _perturbation: Tensor | None = PrivateAttr(default=None)

    def bind(self, classifier: Classifier, context: Context) -> Attack:
        """With the perturbation fitted on the context's images.

        Raises:
            ValueError: if the context has no images.
        """
        if context.images is None or context.labels is None:
            raise ValueError("universal needs images to prepare on: bind it with images and labels in the context")
        images = context.images.to(classifier.device, classifier.dtype)
        bound = self.model_copy()
        with classifier.frozen():
            bound._perturbation = self._fit(classifier, images, context.labels.to(classifier.device), context.seed)
        return bound

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Images + v, [N,C,H,W], clipped to the box."""
        if self._perturbation is None:
            raise ValueError("universal is not fitted yet: call bind with images and labels in the context")
        return self.threat.project(images + self._perturbation.to(images), images)

    def _fit(self, classifier: Classifier, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """v, [1,C,H,W]."""
        perturbation = torch.zeros_like(images[:1])
        orders = [generator(seed, self.name, epoch).permutation(len(images)) for epoch in range(self.epochs)]
        batches = [rows for order in orders for rows in torch.as_tensor(order).split(self.batch_size)]
        for step, rows in enumerate(batches):
            origin, truth = images[rows], labels[rows]
            moved = (origin + perturbation).clamp(0.0, 1.0)
            gradient, _, _ = input_gradient(classifier, moved, lambda z: margin(z, truth).clamp_max(self.clamp))  # noqa: B023
            size = self.step_size * self.threat.radius * (1 - 0.9 * step / len(batches))
            perturbation = perturbation + size * self.threat.steepest(gradient.sum(0, keepdim=True))
            perturbation = self._inside(perturbation)
        return perturbation

    def _inside(self, perturbation: Tensor) -> Tensor:
        """Cut to the ball; an origin in the middle of a box twice as wide as any perturbation keeps the walls away."""
        middle = torch.full_like(perturbation, 0.5)
        shrunk = self.threat.project(middle + perturbation / 2, middle, self.threat.radius / 2)
        return 2 * (shrunk - middle)
