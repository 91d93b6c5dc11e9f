"""ODIN: a hot softmax after a small step that makes the prediction surer, which helps known images more than others."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import input_gradient
from robust.classifier import Classifier
from robust.detection.detector import Fitted, ImageDetector
from robust.randomness import Randomness


class ODIN(ImageDetector):
    """ODIN: max_k softmax(f(x') / T)_k with x' = x + eps sign(grad_x ln max_k softmax(f(x) / T)_k); in [1/K, 1].

    Source: Liang, Li & Srikant 2018, arXiv 1706.02690, eq. 1 and 2. The paper chooses eps on out-of-distribution data;
    the default is its value for CIFAR-10, in [0,1] pixels before normalisation. Two forward and one backward pass.
    """

    name: ClassVar[str] = "odin"
    family: ClassVar[str] = "gradients"
    source: ClassVar[str] = "Liang et al. 2018, arXiv 1706.02690"

    temperature: float = Field(default=1000.0, gt=0, description="T, in logit units")
    eps: float = Field(default=0.0014, ge=0, le=1, description="size of the step, in [0,1] pixels")

    def score_images(self, classifier: Classifier, images: Tensor, fitted: Fitted, rng: Randomness) -> Tensor:
        """Maximum softmax probability after the step, [N]."""
        gradient, _, _ = input_gradient(classifier, images, self._log_confidence)
        with torch.no_grad():
            logits = classifier(images + self.eps * gradient.sign())
        return self._log_confidence(logits).exp()

    def _log_confidence(self, logits: Tensor) -> Tensor:
        return (logits.double() / self.temperature).log_softmax(1).amax(1)
