"""The calibrator contract: fitted on the calibrate split, applied to logits from anywhere."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from robust.method import Method

Fitted = dict[str, Tensor]


class Calibrator(Method):
    """Base of all calibrators; what `fit` returns is a dictionary of float64 tensors, stored beside the model."""

    kind: ClassVar[str] = "calibrator"

    @abstractmethod
    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """Parameters from logits [N,K] and labels [N] of the calibrate split."""

    @abstractmethod
    def transform(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """Calibrated probabilities [N,K], rows summing to 1."""
