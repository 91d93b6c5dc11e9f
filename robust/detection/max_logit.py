"""Maximum logit: the baseline without the softmax, which keeps how large the winning evidence is."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.detection.detector import Detector, Fitted


class MaxLogit(Detector):
    """Maximum logit: max_k z_k, unbounded, in logit units.

    Source: Hendrycks et al. 2022, arXiv 1911.11132, section 3.
    """

    name: ClassVar[str] = "max-logit"
    family: ClassVar[str] = "logits"
    source: ClassVar[str] = "Hendrycks et al. 2022, arXiv 1911.11132"

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """max_k z_k, [N]."""
        return logits.double().amax(1)
