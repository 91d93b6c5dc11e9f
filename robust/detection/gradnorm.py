"""GradNorm: the size of the last layer's gradient when the prediction is pulled towards uniform."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.detection.detector import Detector, Fitted


class GradNorm(Detector):
    """Gradient norm: l1 norm of the last weights' gradient of KL(uniform || softmax(z / T)); at least 0.

    Source: Huang, Geng & Li 2021, arXiv 2110.00218, eq. 4. For a linear layer it factorises (section 5):
    ||f||_1 * sum_k |p_k - 1/K| / T with p = softmax(z / T), so it needs no backward pass and no weights.
    """

    name: ClassVar[str] = "gradnorm"
    family: ClassVar[str] = "features"
    source: ClassVar[str] = "Huang et al. 2021, arXiv 2110.00218"
    needs_features: ClassVar[bool] = True

    temperature: float = Field(default=1.0, gt=0, description="T, in logit units; the paper uses 1")

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """l1 norm of the gradient, [N]."""
        p = (logits.double() / self.temperature).softmax(1)
        return features.double().abs().sum(1) * (p - 1 / p.shape[1]).abs().sum(1) / self.temperature
