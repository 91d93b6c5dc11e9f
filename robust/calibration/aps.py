"""APS: conformal sets whose size follows how hard the image is."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.calibration.calibrator import Fitted, SetPredictor, checked
from robust.calibration.conformal import aps_scores, own, threshold


class APS(SetPredictor):
    """Adaptive prediction sets: the most likely classes until their total probability reaches the threshold.

    Source: Romano, Sesia & Candes 2020, arXiv 2006.02544, eq. 7 without the randomisation, so that sets are a
    function of the logits; they are valid and somewhat larger.
    """

    name: ClassVar[str] = "aps"
    family: ClassVar[str] = "conformal"
    source: ClassVar[str] = "Romano et al. 2020, arXiv 2006.02544"

    alpha: float = Field(default=0.1, gt=0, lt=1, description="miscoverage allowed; coverage is at least 1 - alpha")

    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """`threshold`, 0-dimensional."""
        p = checked(logits, labels).softmax(1)
        return {"threshold": threshold(own(aps_scores(p), labels), self.alpha)}

    def sets(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """Classes whose score is at most the threshold, [N,K] bool."""
        return aps_scores(checked(logits).softmax(1)) <= fitted["threshold"].to(logits.device)
