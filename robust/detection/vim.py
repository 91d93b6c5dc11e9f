"""ViM: a virtual logit made of the part of the features that training data do not use."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.detection.detector import Detector, Fitted, Head, required


class ViM(Detector):
    """Virtual-logit matching: logsumexp(z) - alpha ||P (f - o)||, with P the projection off the principal subspace.

    Source: Wang et al. 2022, arXiv 2203.10807, eq. 4-7; this is the log-odds of the paper's virtual softmax. The origin
    o = -W^+ b makes features and logits share a zero; alpha = sum max_k z_k / sum ||P (f - o)|| over training data
    brings the residual to the size of a logit.
    """

    name: ClassVar[str] = "vim"
    family: ClassVar[str] = "features"
    source: ClassVar[str] = "Wang et al. 2022, arXiv 2203.10807"
    needs_features: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True

    dimension: int | None = Field(
        default=None, ge=1, description="of the principal subspace; None: 1000 from D = 2048, 512 from 768, else D / 2"
    )

    def fit_features(self, features: Tensor, logits: Tensor, labels: Tensor, head: Head | None = None) -> Fitted:
        """`origin` [D], `residual` [D,R] and `alpha`."""
        weight, bias = required(head, self.name)
        origin = -torch.linalg.pinv(weight) @ bias
        centred = features.double() - origin.to(features.device)
        _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))  # eigenvalues rise: residual first
        residual = vectors[:, : features.shape[1] - self._principal(features.shape[1])]
        norms = (centred @ residual).norm(dim=1).sum().clamp(min=1e-12)
        return {"origin": origin, "residual": residual, "alpha": logits.double().amax(1).sum() / norms}

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """Energy less the virtual logit, [N]."""
        f = features.double()
        norm = ((f - fitted["origin"].to(f)) @ fitted["residual"].to(f)).norm(dim=1)
        return logits.double().logsumexp(1) - fitted["alpha"].to(f) * norm

    def _principal(self, width: int) -> int:
        chosen = self.dimension or (1000 if width >= 2048 else 512 if width >= 768 else max(1, width // 2))
        if chosen >= width:
            raise ValueError(f"vim: dimension {chosen} leaves no residual of {width} features; choose a smaller one")
        return chosen
