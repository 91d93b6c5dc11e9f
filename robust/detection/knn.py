"""KNN: distance to the k-th nearest training feature on the unit sphere."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from robust.detection.detector import Detector, Fitted, Head

CHUNK = 512  # test rows at a time: a block of distances to 50,000 training rows then takes 200 MB


class KNN(Detector):
    """Distance to the k-th neighbour: -||f/|f| - (k-th nearest training feature)||, in [-2, 0].

    Source: Sun et al. 2022, arXiv 2204.06507, section 3. No assumption on the shape of the features; keeps all of
    them, [N,D] in float32, and costs N D multiplications an image. Where there are fewer than k, the farthest counts.
    """

    name: ClassVar[str] = "knn"
    family: ClassVar[str] = "features"
    source: ClassVar[str] = "Sun et al. 2022, arXiv 2204.06507"
    needs_features: ClassVar[bool] = True

    neighbours: int = Field(default=50, ge=1, description="k; the paper uses 50 on CIFAR-10, 200 on CIFAR-100")

    def fit_features(self, features: Tensor, logits: Tensor, labels: Tensor, head: Head | None = None) -> Fitted:
        """`bank` [N,D], training features on the unit sphere."""
        return {"bank": normalize(features.double()).float()}

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """Negative distance to the k-th neighbour, [N]."""
        bank = fitted["bank"].to(features.device).double()
        k = min(self.neighbours, len(bank))
        points = normalize(features.double())
        return torch.cat([-torch.cdist(rows, bank).kthvalue(k, dim=1).values for rows in points.split(CHUNK)])
