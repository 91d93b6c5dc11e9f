"""KL matching: does the whole predicted distribution look like that of any class?"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robust.detection.detector import Detector, Fitted, Head


class KLMatching(Detector):
    """KL matching: -min_k KL(softmax(z) || d_k) with d_k the mean softmax of training data predicted as k; at most 0.

    Source: Hendrycks et al. 2022, arXiv 1911.11132, section 4. A class that was never predicted has no template.
    """

    name: ClassVar[str] = "kl-matching"
    family: ClassVar[str] = "logits"
    source: ClassVar[str] = "Hendrycks et al. 2022, arXiv 1911.11132"

    def fit_features(self, features: Tensor, logits: Tensor, labels: Tensor, head: Head | None = None) -> Fitted:
        """`log_templates` [T,K], one row for each class that is ever predicted."""
        p, predicted = logits.double().softmax(1), logits.argmax(1)
        templates = torch.stack([p[predicted == k].mean(0) for k in predicted.unique()])
        return {"log_templates": templates.clamp(min=torch.finfo(p.dtype).tiny).log()}

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """Negative divergence from the nearest template, [N]."""
        log_p = logits.double().log_softmax(1)
        p = log_p.exp()
        divergence = (p * log_p).sum(1, keepdim=True) - p @ fitted["log_templates"].to(p).T
        return -divergence.amin(1)
