"""Ensemble temperature scaling: a mixture of the scaled, the plain and the uniform prediction."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.optimize import minimize
from torch import Tensor

from robust.calibration.calibrator import Calibrator, Fitted, checked, mean_nll
from robust.calibration.temperature import best_temperature


class EnsembleTemperature(Calibrator):
    """Ensemble temperature scaling: p = w_1 softmax(z / T) + w_2 softmax(z) + w_3 / K, with w on the simplex.

    Source: Zhang, Kailkhura & Han 2020 (Mix-n-Match), arXiv 2003.07329, eq. 7. T is that of temperature scaling; then
    the NLL is convex in w, and its minimum is compared with the three corners, so it is never worse on its own split
    than temperature scaling or than no calibration. Predictions do not change. The members are three readings of one
    network; a deep ensemble averages its networks inside the model and brings logits [N,K] like any other.

    `fit` returns `temperature`, `weights` [3], `nll_before` and `nll_after` in nats.
    """

    name: ClassVar[str] = "ensemble-temperature"
    family: ClassVar[str] = "parametric"
    source: ClassVar[str] = "Zhang et al. 2020, arXiv 2003.07329"

    low: float = Field(default=0.01, gt=0, le=1, description="least temperature allowed, in (0,1]")
    high: float = Field(default=100.0, ge=1, description="greatest temperature allowed, at least 1")

    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """Temperature, then mixture weights, of least NLL."""
        z = checked(logits, labels)
        temperature, _ = best_temperature(z, labels, self.low, self.high)
        own = torch.stack([p.gather(1, labels[:, None].long())[:, 0] for p in _members(z, temperature)], 1)
        weights = _mixture(own.cpu().numpy())
        return {
            "temperature": z.new_tensor(temperature),
            "weights": z.new_tensor(weights),
            "nll_before": mean_nll(z, labels),
            "nll_after": -torch.log((own @ z.new_tensor(weights)).clamp(min=torch.finfo(z.dtype).tiny)).mean(),
        }

    def transform(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """The mixture, [N,K]."""
        z = checked(logits)
        members = _members(z, float(fitted["temperature"]))
        mixed: Tensor = sum((w * p for w, p in zip(fitted["weights"].to(z), members)), z.new_zeros(()))
        return mixed / mixed.sum(1, keepdim=True)


def _members(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    plain = logits.softmax(1)
    return (logits / temperature).softmax(1), plain, torch.full_like(plain, 1 / plain.shape[1])


def _mixture(own: np.ndarray) -> np.ndarray:
    """Weights [3] on the simplex of least NLL, from the probabilities [N,3] that the members give the true class."""
    tiny = np.finfo(np.float64).tiny

    def value_and_gradient(w: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = np.maximum(own @ w, tiny)
        return float(-np.log(mixed).mean()), -(own / mixed[:, None]).mean(0)

    found = minimize(
        value_and_gradient,
        np.full(3, 1 / 3),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"maxiter": 500, "ftol": 1e-12},
    )
    inside = np.clip(found.x, 0, 1)
    candidates = [*np.eye(3), inside / inside.sum()]
    return np.asarray(min(candidates, key=lambda w: value_and_gradient(w)[0]))
