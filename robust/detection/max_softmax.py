"""Maximum softmax probability: the baseline that every other score has to beat."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.detection.detector import Detector, Fitted


class MaxSoftmax(Detector):
    """Maximum softmax probability: max_k softmax(z)_k, in [1/K, 1].

    Source: Hendrycks & Gimpel 2017, arXiv 1610.02136, section 2. The softmax is taken in float64, where it saturates at
    logit gaps of 37 rather than 17; the score is then 1 for all samples beyond, which are ties.
    """

    name: ClassVar[str] = "max-softmax"
    family: ClassVar[str] = "logits"
    source: ClassVar[str] = "Hendrycks & Gimpel 2017, arXiv 1610.02136"

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """max_k softmax(z)_k, [N]."""
        return logits.double().softmax(1).amax(1)
