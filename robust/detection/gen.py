"""GEN: a generalised entropy that listens to small probabilities."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.detection.detector import Detector, Fitted


class GEN(Detector):
    """Generalised entropy: -sum over the M largest probabilities of p^gamma (1 - p)^gamma; at most 0.

    Source: Liu, Lochman & Zach 2023 (CVPR), "GEN: Pushing the limits of softmax-based out-of-distribution detection",
    eq. 2 and 4. A small gamma makes a net that is almost sure tell its shades of doubt apart.
    """

    name: ClassVar[str] = "gen"
    family: ClassVar[str] = "logits"
    source: ClassVar[str] = "Liu et al. 2023, CVPR"

    gamma: float = Field(default=0.1, gt=0, lt=1, description="exponent; the paper uses 0.1")
    top: int = Field(default=100, ge=1, description="M, probabilities that count; all where there are fewer classes")

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """Negative generalised entropy, [N]."""
        log_p = logits.double().log_softmax(1)
        log_p = log_p.topk(min(self.top, log_p.shape[1]), dim=1).values
        # 1 - p through expm1, since p is within rounding of 1 where the score matters most
        return -((log_p.exp() * -log_p.expm1()) ** self.gamma).sum(1)
