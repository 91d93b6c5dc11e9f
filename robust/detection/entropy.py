"""Negative entropy of the predicted distribution."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.detection.detector import Detector, Fitted


class Entropy(Detector):
    """Negative entropy: sum_k p_k ln p_k of p = softmax(z), in [-ln K, 0] nats.

    Source: the total predictive uncertainty of, for instance, Malinin & Gales 2018, arXiv 1802.10501.
    """

    name: ClassVar[str] = "entropy"
    family: ClassVar[str] = "logits"
    source: ClassVar[str] = "Malinin & Gales 2018, arXiv 1802.10501"

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """sum_k p_k ln p_k, [N]."""
        log_p = logits.double().log_softmax(1)
        return (log_p.exp() * log_p).sum(1)
