"""ReAct: features are cut at a height that training data rarely exceed, then the energy is taken."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.detection.detector import Detector, Fitted, Head, required


class ReAct(Detector):
    """Rectified activations: logsumexp(W min(f, c) + b), c a percentile of all training activations.

    Source: Sun, Guo & Li 2021, arXiv 2111.12797, eq. 4 with the energy score.
    """

    name: ClassVar[str] = "react"
    family: ClassVar[str] = "features"
    source: ClassVar[str] = "Sun et al. 2021, arXiv 2111.12797"
    needs_features: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True

    percentile: float = Field(default=90.0, gt=0, le=100, description="of training activations, sets the height c")

    def fit_features(self, features: Tensor, logits: Tensor, labels: Tensor, head: Head | None = None) -> Fitted:
        """`height` c, `weight` [K,D] and `bias` [K]."""
        weight, bias = required(head, self.name)
        values = features.double().flatten()
        # by kthvalue, since torch.quantile refuses more than 2^24 values
        height = values.kthvalue(max(1, round(self.percentile / 100 * len(values)))).values
        return {"height": height, "weight": weight, "bias": bias}

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """Energy of the cut features, [N]."""
        f = torch.minimum(features.double(), fitted["height"].to(features.device))
        return (f @ fitted["weight"].to(f).T + fitted["bias"].to(f)).logsumexp(1)
