"""Histogram binning: each class's probability is replaced by the frequency seen in its bin."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot

from robust.calibration.calibrator import Calibrator, Fitted, checked, with_floor


class HistogramBinning(Calibrator):
    """Histogram binning: p_k becomes the class's frequency in the bin that p_k falls into, then rows are normalised.

    Source: Zadrozny & Elkan 2001, "Obtaining calibrated probability estimates from decision trees and naive Bayesian
    classifiers"; one against the rest as in Guo et al. 2017 (arXiv 1706.04599, section 4.2). Bins are ((m-1)/M, m/M].
    An empty bin keeps its middle. It may change predictions, and NLL may rise: a frequency of 0 becomes 1e-12.

    `fit` returns `frequency` [K, bins].
    """

    name: ClassVar[str] = "histogram-binning"
    family: ClassVar[str] = "non-parametric"
    source: ClassVar[str] = "Zadrozny & Elkan 2001"

    bins: int = Field(default=15, ge=1, le=1000, description="equal-width bins of each class's probability")

    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """The frequency of every class in every bin."""
        z = checked(logits, labels)
        bin_of, classes = self._bins(z), z.shape[1]
        event = one_hot(labels.long(), classes).double()
        count = z.new_zeros(classes, self.bins).scatter_add_(1, bin_of.T, torch.ones_like(event.T))
        hits = z.new_zeros(classes, self.bins).scatter_add_(1, bin_of.T, event.T)
        middle = (torch.arange(self.bins, dtype=z.dtype, device=z.device) + 0.5) / self.bins
        return {"frequency": torch.where(count > 0, hits / count.clamp(min=1), middle)}

    def transform(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """Every probability's bin frequency, rows normalised, [N,K]."""
        z = checked(logits)
        return with_floor(fitted["frequency"].to(z).gather(1, self._bins(z).T).T)

    def _bins(self, logits: Tensor) -> Tensor:
        edges = torch.linspace(0, 1, self.bins + 1, dtype=logits.dtype, device=logits.device)
        return (torch.bucketize(logits.softmax(1), edges) - 1).clamp(0, self.bins - 1)
