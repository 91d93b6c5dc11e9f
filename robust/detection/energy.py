"""Negative energy: the log of the softmax's denominator, an unnormalised log p(x) of the classifier read as a model."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.detection.detector import Detector, Fitted


class Energy(Detector):
    """Negative free energy: T log sum_k exp(z_k / T), unbounded, in logit units.

    Source: Liu et al. 2020, arXiv 2010.03759, eq. 4. At T = 1 it is log p(x) up to a constant when the classifier is
    read as the energy-based model of Grathwohl et al. 2020 (arXiv 1912.03263).
    """

    name: ClassVar[str] = "energy"
    family: ClassVar[str] = "logits"
    source: ClassVar[str] = "Liu et al. 2020, arXiv 2010.03759"

    temperature: float = Field(default=1.0, gt=0, description="T, in logit units; the paper uses 1")

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """T logsumexp(z / T), [N]."""
        return self.temperature * (logits.double() / self.temperature).logsumexp(1)
