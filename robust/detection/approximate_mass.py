"""Approximate mass: an image that is likely but stands on a spike of log p(x) is no typical one."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.attacks.attack import input_gradient
from robust.classifier import Classifier
from robust.detection.detector import Fitted, ImageDetector
from robust.randomness import Randomness


class ApproximateMass(ImageDetector):
    """Approximate mass: -||d log p(x) / dx||_2 with log p(x) = logsumexp_k f(x)_k; at most 0, in nats per [0,1] pixel.

    Source: Grathwohl et al. 2020 (JEM), arXiv 1912.03263, section 5.3.2. Meant for joint energy models; their log p(x)
    itself is the score `energy`. One forward and one backward pass.
    """

    name: ClassVar[str] = "approximate-mass"
    family: ClassVar[str] = "gradients"
    source: ClassVar[str] = "Grathwohl et al. 2020, arXiv 1912.03263"

    def score_images(self, classifier: Classifier, images: Tensor, fitted: Fitted, rng: Randomness) -> Tensor:
        """Negative length of the gradient of log p(x), [N]."""
        gradient, _, _ = input_gradient(classifier, images, lambda logits: logits.logsumexp(1))
        return -gradient.double().flatten(1).norm(dim=1)
