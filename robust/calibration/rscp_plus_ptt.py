"""RSCP+ with post-training transformation: the base score is bent so that smoothing costs less, and sets shrink."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.calibration.calibrator import Fitted
from robust.calibration.conformal import own, threshold
from robust.calibration.rscp_plus import RSCPPlus, checked_copies
from robust.randomness import generator


class RSCPPlusPTT(RSCPPlus):
    """Robust conformal sets after post-training transformation (RSCP+ with PTT).

    Source: Yan, Romano & Weng 2024, arXiv 2404.19651, section 4.1. A holdout part of the calibrate split gives the
    distribution F of the true class's score under a single noise draw; every score s becomes
    sigmoid((F(s) - b) / temperature), b = 1 - alpha: a rank, then a step around the threshold, where alone it matters.
    The transform is monotone and keeps scores in [0,1], and the holdout is not used again, so RSCP+'s guarantee stands.

    The holdout is drawn with a seed of its own, by position in the split.
    """

    name: ClassVar[str] = "rscp-plus-ptt"
    family: ClassVar[str] = "robust-conformal"
    source: ClassVar[str] = "Yan et al. 2024, arXiv 2404.19651"

    holdout: float = Field(default=0.2, gt=0, lt=1, description="share of the split that shapes the transform")
    temperature: float = Field(default=1 / 400, gt=0, description="width of the sigmoid, in units of rank in [0,1]")

    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """`holdout_scores` [H], rising, and `threshold`, from noisy logits [N,M,K] of clean images."""
        z = checked_copies(logits, labels)
        order = torch.as_tensor(generator(0, "ptt-holdout").permutation(len(z)), device=z.device)
        cut = max(1, round(self.holdout * len(z)))
        if cut >= len(z):
            raise ValueError(f"a calibrate split of {len(z)} leaves nothing beside the holdout; use more samples")
        shape, rest = order[:cut], order[cut:]
        base = own(super()._scores(z[shape, :1], {})[:, 0], labels[shape])
        fitted = {"holdout_scores": base.sort().values}
        scores = self._scores(z[rest], fitted).mean(1)
        return {**fitted, "threshold": threshold(own(scores, labels[rest]), self.alpha - 2 * self.beta)}

    def _scores(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """Transformed scores of every noisy copy and class, [N,M,K]."""
        known = fitted["holdout_scores"].to(logits)
        rank = torch.searchsorted(known, super()._scores(logits, {}).contiguous(), right=True) / len(known)
        return torch.sigmoid((rank.to(logits) - (1 - self.alpha)) / self.temperature)
