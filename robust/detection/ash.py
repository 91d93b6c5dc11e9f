"""ASH: most activations are removed, the rest scaled up, then the energy is taken."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.detection.detector import Detector, Fitted, Head, required


class ASH(Detector):
    """Activation shaping (ASH-S): each image keeps its largest activations, times exp(sum before / sum after).

    Source: Djurisic et al. 2023, arXiv 2209.09858, algorithm 3, with the energy score. The paper shapes the feature map
    before pooling; here it is the penultimate vector, as in most re-implementations for features alone. Activations
    are taken as rectified: what is below 0 is removed first. The paper removes 60 to 95 %, more in wider layers.
    """

    name: ClassVar[str] = "ash"
    family: ClassVar[str] = "features"
    source: ClassVar[str] = "Djurisic et al. 2023, arXiv 2209.09858"
    needs_features: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True

    percentile: float = Field(default=65.0, ge=0, lt=100, description="share of each image's activations removed, in %")

    def fit_features(self, features: Tensor, logits: Tensor, labels: Tensor, head: Head | None = None) -> Fitted:
        """`weight` [K,D] and `bias` [K]."""
        weight, bias = required(head, self.name)
        return {"weight": weight, "bias": bias}

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """Energy of the shaped features, [N]."""
        f = self._shape(features.double().clamp(min=0))
        return (f @ fitted["weight"].to(f).T + fitted["bias"].to(f)).logsumexp(1)

    def _shape(self, features: Tensor) -> Tensor:
        keep = max(1, features.shape[1] - round(self.percentile / 100 * features.shape[1]))
        largest, where = features.topk(keep, dim=1)
        # the ratio is at most D / keep, so that exp cannot overflow below percentile 99.8
        ratio = features.sum(1) / largest.sum(1).clamp(min=torch.finfo(features.dtype).tiny)
        return torch.zeros_like(features).scatter_(1, where, largest) * ratio.clamp(max=500).exp()[:, None]
