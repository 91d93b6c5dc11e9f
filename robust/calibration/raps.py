"""RAPS: adaptive sets with a price on every class beyond the first few, which cuts the long tails of APS."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.calibration.calibrator import Fitted, SetPredictor, checked
from robust.calibration.conformal import aps_scores, own, ranks, threshold


class RAPS(SetPredictor):
    """Regularised adaptive prediction sets: the APS score plus penalty * max(0, rank - free_ranks).

    Source: Angelopoulos et al. 2021, arXiv 2009.14193, eq. 4 without the randomisation. The paper tunes both
    parameters on held-out data for ImageNet; these defaults are ours, for ten to a hundred classes.
    """

    name: ClassVar[str] = "raps"
    family: ClassVar[str] = "conformal"
    source: ClassVar[str] = "Angelopoulos et al. 2021, arXiv 2009.14193"

    alpha: float = Field(default=0.1, gt=0, lt=1, description="miscoverage allowed; coverage is at least 1 - alpha")
    penalty: float = Field(default=0.1, ge=0, description="lambda, added to the score for each rank beyond")
    free_ranks: int = Field(default=2, ge=0, description="k_reg, ranks without a penalty")

    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """`threshold`, 0-dimensional."""
        scores = self._scores(checked(logits, labels))
        return {"threshold": threshold(own(scores, labels), self.alpha)}

    def sets(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """Classes whose score is at most the threshold, [N,K] bool."""
        return self._scores(checked(logits)) <= fitted["threshold"].to(logits.device)

    def _scores(self, logits: Tensor) -> Tensor:
        p = logits.softmax(1)
        return aps_scores(p) + self.penalty * (ranks(p) - self.free_ranks).clamp(min=0)
