"""Negative energy: the log of the softmax's denominator, an unnormalised log p(x) of the classifier read as a model."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.detection.detector import Detector, Fitted

ROUNDING = 1e-6  # of float32's log-probabilities, in units of the largest of them


class Energy(Detector):
    """Negative free energy: T log sum_k exp(z_k / T), unbounded, in logit units.

    Source: Liu et al. 2020, arXiv 2010.03759, eq. 4. At T = 1 it is log p(x) up to a constant when the classifier is
    read as the energy-based model of Grathwohl et al. 2020 (arXiv 1912.03263).

    A classifier that returns log-probabilities, such as an average over several networks, has the energy 0 everywhere;
    what rounding leaves of it tells nothing and counts as 0, so that the AUROC is 1/2.
    """

    name: ClassVar[str] = "energy"
    family: ClassVar[str] = "logits"
    source: ClassVar[str] = "Liu et al. 2020, arXiv 2010.03759"

    temperature: float = Field(default=1.0, gt=0, description="T, in logit units; the paper uses 1")

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """T logsumexp(z / T), [N]."""
        energy = self.temperature * (logits.double() / self.temperature).logsumexp(1)
        rounding = ROUNDING * logits.double().abs().amax(1).clamp(min=1)
        return energy.where(energy.abs() > rounding, 0)
