"""Beta calibration: a three-parameter map of each class's probability that can also leave it as it is."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from robust.calibration.affine import BOUND, minimised
from robust.calibration.calibrator import Calibrator, Fitted, checked, with_floor


class Beta(Calibrator):
    """Beta calibration of each class against the rest, then rows are normalised.

    Source: Kull, Silva Filho & Flach 2017, "Beta calibration", eq. 3:
    q = 1 / (1 + exp(-c) (1 - p)^b / p^a) with a, b >= 0, which is logistic regression on ln p and -ln(1 - p). The
    identity is a = b = 1, c = 0, where the fit starts; it is convex, in float64 and from log-probabilities. Binary NLL
    of each class never rises on the split; NLL of the normalised rows usually falls but need not.

    `fit` returns `a`, `b`, `c`, each [K].
    """

    name: ClassVar[str] = "beta"
    family: ClassVar[str] = "parametric"
    source: ClassVar[str] = "Kull et al. 2017, PMLR 54"

    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """The three parameters of every class; ArithmeticError if the optimiser does not converge."""
        z = checked(logits, labels)
        own, rest = (part.cpu().numpy() for part in _log_odds_parts(z))
        y = labels.cpu().numpy()
        rows = np.stack([_fit_binary(own[:, k], rest[:, k], y == k) for k in range(z.shape[1])])
        a, b, c = torch.as_tensor(rows, device=z.device).unbind(1)
        return {"a": a, "b": b, "c": c}

    def transform(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """Every probability through its class's map, rows normalised, [N,K]."""
        z = checked(logits)
        own, rest = _log_odds_parts(z)
        return with_floor(torch.sigmoid(fitted["a"].to(z) * own - fitted["b"].to(z) * rest + fitted["c"].to(z)))


def _log_odds_parts(logits: Tensor) -> tuple[Tensor, Tensor]:
    """ln p and ln(1 - p), [N,K], floored at ln 1e-12; the second summed over the other classes, so it never cancels."""
    classes = logits.shape[1]
    others = torch.eye(classes, dtype=torch.bool, device=logits.device)
    rest = torch.stack([logits.masked_fill(others[k], -torch.inf).logsumexp(1) for k in range(classes)], 1)
    total = logits.logsumexp(1, keepdim=True)
    floor = float(np.log(1e-12))
    return (logits - total).clamp(min=floor), (rest - total).clamp(min=floor)


def _fit_binary(own: np.ndarray, rest: np.ndarray, event: np.ndarray) -> np.ndarray:
    design = np.stack([own, -rest, np.ones_like(own)], 1)
    sign = np.where(event, 1.0, -1.0)

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        loss = np.logaddexp(0, -sign * (design @ x))
        wrong = -sign * -np.expm1(-loss)  # 1 - exp(-loss) is the probability given to the other answer
        return float(loss.mean()), design.T @ wrong / len(own)

    return minimised(value_and_gradient, np.array([1.0, 1.0, 0.0]), [(0, BOUND), (0, BOUND), (-BOUND, BOUND)])
