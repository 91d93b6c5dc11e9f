"""LAC: the smallest conformal sets on average, as large as a fixed probability threshold makes them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.calibration.calibrator import Fitted, SetPredictor, checked
from robust.calibration.conformal import lac_scores, own, threshold


class LAC(SetPredictor):
    """Least ambiguous sets: all classes with p_k >= 1 - q, q the conformal quantile of 1 - p_y. Sets may be empty.

    Source: Sadinle, Lei & Wasserman 2019, arXiv 1609.00451; split conformal form. The score is also called HPS or THR.
    """

    name: ClassVar[str] = "lac"
    family: ClassVar[str] = "conformal"
    source: ClassVar[str] = "Sadinle et al. 2019, arXiv 1609.00451"

    alpha: float = Field(default=0.1, gt=0, lt=1, description="miscoverage allowed; coverage is at least 1 - alpha")

    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """`threshold`, 0-dimensional."""
        p = checked(logits, labels).softmax(1)
        return {"threshold": threshold(own(lac_scores(p), labels), self.alpha)}

    def sets(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """Classes whose score is at most the threshold, [N,K] bool."""
        return lac_scores(checked(logits).softmax(1)) <= fitted["threshold"].to(logits.device)
