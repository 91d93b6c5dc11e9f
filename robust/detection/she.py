"""SHE: the inner product with the stored pattern of the predicted class."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robust.detection.detector import Detector, Fitted, Head


class SHE(Detector):
    """Simplified Hopfield energy: f . m_k for the predicted class k, m_k the mean feature of training data right as k.

    Source: Zhang et al. 2023 (ICLR), "Out-of-distribution detection based on in-distribution data patterns memorization
    with modern Hopfield energy", eq. 8. A class that is never predicted rightly gets the mean over all classes.
    """

    name: ClassVar[str] = "she"
    family: ClassVar[str] = "features"
    source: ClassVar[str] = "Zhang et al. 2023, ICLR"
    needs_features: ClassVar[bool] = True

    def fit_features(self, features: Tensor, logits: Tensor, labels: Tensor, head: Head | None = None) -> Fitted:
        """`patterns` [K,D]."""
        f, right = features.double(), logits.argmax(1) == labels
        patterns = f.mean(0).repeat(logits.shape[1], 1)
        for k in labels[right].unique():
            patterns[k] = f[right & (labels == k)].mean(0)
        return {"patterns": patterns}

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """Inner product with the predicted class's pattern, [N]."""
        f = features.double()
        chosen: Tensor = fitted["patterns"].to(f)[logits.argmax(1)]
        return torch.einsum("nd,nd->n", f, chosen)
