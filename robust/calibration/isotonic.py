"""Isotonic regression: for each class the rising step function from probability to frequency that fits best."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from robust.calibration.calibrator import Calibrator, Fitted, checked, with_floor


class Isotonic(Calibrator):
    """Isotonic regression of each class's probability on its own frequency, then rows are normalised.

    Source: Zadrozny & Elkan 2002, "Transforming classifier scores into accurate multiclass probability estimates",
    section 3 (one against the rest). Pool-adjacent-violators comes from scikit-learn; between knots the map is linear.
    It may change predictions, and NLL may rise: a probability that the split never confirmed becomes the floor 1e-12.

    `fit` returns `knots` [K,L] and `values` [K,L], padded with the last one.
    """

    name: ClassVar[str] = "isotonic"
    family: ClassVar[str] = "non-parametric"
    source: ClassVar[str] = "Zadrozny & Elkan 2002"

    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """Knots and values of every class's map."""
        z = checked(logits, labels)
        p, y = z.softmax(1).cpu().numpy(), labels.cpu().numpy()
        maps = [_knots(p[:, k], y == k) for k in range(p.shape[1])]
        length = max(len(knots) for knots, _ in maps)
        stacked = (
            np.stack([np.pad(pair[part], (0, length - len(pair[part])), mode="edge") for pair in maps])
            for part in (0, 1)
        )
        knots, values = (torch.as_tensor(array, device=z.device) for array in stacked)
        return {"knots": knots, "values": values}

    def transform(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """Every probability through its class's map, rows normalised, [N,K]."""
        z = checked(logits)
        p = z.softmax(1).cpu().numpy()
        knots, values = fitted["knots"].cpu().numpy(), fitted["values"].cpu().numpy()
        mapped = np.stack([np.interp(p[:, k], knots[k], values[k]) for k in range(p.shape[1])], 1)
        return with_floor(torch.as_tensor(mapped, device=z.device))


def _knots(probability: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners of one class's map, in float64."""
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(probability, event.astype(np.float64))
    return np.asarray(fitted.X_thresholds_, np.float64), np.asarray(fitted.y_thresholds_, np.float64)
