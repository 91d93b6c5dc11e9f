"""Refinement drop: how far an image is from where the model's own Langevin walk would take it."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from robust.classifier import Classifier
from robust.detection.detector import Fitted, ImageDetector
from robust.energy import Langevin, log_density, score
from robust.randomness import Randomness


class RefinementDrop(ImageDetector):
    """Minus what n Langevin steps change: log p(x), the length of its gradient, or the image itself.

    `log-px`: F(x) - F(x_n), F(x) = logsumexp_k f(x)_k: at home in the model, an image has little left to gain;
    `gradient`: |dF/dx (x_n)|_2 - |dF/dx (x)|_2; `distance`: -|x_n - x|_2. These are the undocumented scores `refine`,
    `refinegrad` and `refinel2` of the official code of Grathwohl et al. 2020 (arXiv 1912.03263), signed so that higher
    is more in-distribution, in nats, nats per pixel, and [0,1] pixels. log p(x) itself is the score `energy`.

    Costs `steps` + 1 to 2 forward passes and `steps` to `steps` + 2 backward passes. Settings are for [-1,1] pixels.
    """

    name: ClassVar[str] = "refinement-drop"
    family: ClassVar[str] = "energy"
    source: ClassVar[str] = "after the code of arXiv 1912.03263"

    quantity: Literal["log-px", "gradient", "distance"] = Field(default="log-px", description="what is compared")
    steps: int = Field(default=10, ge=1, description="Langevin steps")
    step_size: float = Field(default=1.0, gt=0, description="alpha of a step, for [-1,1] pixels")
    sigma: float = Field(default=0.01, ge=0, description="deviation of a step's noise, for [-1,1] pixels")

    def score_images(self, classifier: Classifier, images: Tensor, fitted: Fitted, rng: Randomness) -> Tensor:
        """The drop, [N] float64; each sample walks by draws of its own."""
        sampler = Langevin(self.steps, self.step_size, self.sigma)
        refined = sampler.walk(
            classifier, images, lambda step: rng.fork("step", step).normal(images.shape[1:], like=images)
        ).images
        if self.quantity == "distance":
            return -_length(refined - images)
        if self.quantity == "gradient":
            return _length(score(classifier, refined)) - _length(score(classifier, images))
        with torch.no_grad():
            return (log_density(classifier(images)).double() - log_density(classifier(refined)).double()).detach()


def _length(values: Tensor) -> Tensor:
    return values.double().flatten(1).norm(dim=1)
