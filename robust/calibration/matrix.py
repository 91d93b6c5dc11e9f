"""Matrix scaling with the regulariser that keeps its K^2 weights from overfitting."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.calibration.affine import fit_affine
from robust.calibration.calibrator import Calibrator, Fitted, checked


class Matrix(Calibrator):
    """Matrix scaling: p = softmax(W z + b), with off-diagonal weights and biases held small (ODIR).

    Source: Guo et al. 2017, arXiv 1706.04599, section 4.2; the penalty is that of Kull et al. 2019, arXiv 1910.12656:
    lambda / (K (K - 1)) sum_{i != j} W_ij^2 + mu / K sum_j b_j^2, added to the NLL. Without it the K^2 weights overfit
    (Guo et al. table 1: ECE of 25 % on CIFAR-100). Kull et al. choose lambda and mu by cross-validation; the defaults
    here are ours, for a few thousand samples. Convex, started at temperature scaling; K^2 + K parameters.

    `fit` returns `weight` [K,K], `bias` [K], `nll_before` and `nll_after` in nats.
    """

    name: ClassVar[str] = "matrix"
    family: ClassVar[str] = "parametric"
    source: ClassVar[str] = "Guo et al. 2017, arXiv 1706.04599; Kull et al. 2019, arXiv 1910.12656"

    off_diagonal_penalty: float = Field(default=1e-2, ge=0, description="lambda, factor of the mean square, in nats")
    bias_penalty: float = Field(default=1e-2, ge=0, description="mu, factor of the mean squared bias, in nats")

    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """Weights and biases of least penalised NLL; ArithmeticError if the optimiser does not converge."""
        z = checked(logits, labels)
        classes = z.shape[1]
        off = 1 - torch.eye(classes, dtype=z.dtype, device=z.device)

        def penalty(w: Tensor, b: Tensor) -> Tensor:
            return (
                self.off_diagonal_penalty * (w * off).square().sum() / off.sum() + self.bias_penalty * b.square().mean()
            )

        return fit_affine(
            z,
            labels,
            calibrated=lambda z, w, b: z @ w.T + b,
            start=lambda inverse: inverse * torch.eye(classes, dtype=z.dtype),
            penalty=penalty,
        )

    def transform(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """softmax(W z + b), [N,K]."""
        z = checked(logits)
        return (z @ fitted["weight"].to(z).T + fitted["bias"].to(z)).softmax(1)
