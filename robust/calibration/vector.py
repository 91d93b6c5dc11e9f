"""Vector scaling: one weight and one bias for each class."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.calibration.affine import fit_affine
from robust.calibration.calibrator import Calibrator, Fitted, checked


class Vector(Calibrator):
    """Vector scaling: p = softmax(w * z + b) with one w and b a class, of least NLL on the calibrate split.

    Source: Guo et al. 2017, arXiv 1706.04599, section 4.2 (a diagonal W). The problem is convex and starts at
    temperature scaling. A small ridge on the biases, which is ours, keeps a class that the split lacks possible.

    `fit` returns `weight` [K], `bias` [K], `nll_before` and `nll_after` in nats.
    """

    name: ClassVar[str] = "vector"
    family: ClassVar[str] = "parametric"
    source: ClassVar[str] = "Guo et al. 2017, arXiv 1706.04599"

    bias_penalty: float = Field(default=1e-3, ge=0, description="factor of the mean squared bias, in nats")

    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """Weights and biases of least penalised NLL; ArithmeticError if the optimiser does not converge."""
        z = checked(logits, labels)
        return fit_affine(
            z,
            labels,
            calibrated=lambda z, w, b: z * w + b,
            start=lambda inverse: torch.full((z.shape[1],), inverse, dtype=z.dtype),
            penalty=lambda w, b: self.bias_penalty * b.square().mean(),
        )

    def transform(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """softmax(w * z + b), [N,K]."""
        z = checked(logits)
        return (z * fitted["weight"].to(z) + fitted["bias"].to(z)).softmax(1)
