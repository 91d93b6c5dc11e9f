"""What vector and matrix scaling share: the convex fit of an affine map of the logits, started at temperature scaling.

The start has no off-diagonal weight and no bias, hence no penalty, so the minimum of the penalised NLL bounds the
NLL from above: the fit is never worse on its own split than temperature scaling, which is never worse than none.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from robust.calibration.calibrator import Fitted, mean_nll
from robust.calibration.temperature import best_temperature

BOUND = 100.0  # of every weight and bias: where all samples are right there is no finite minimum
SLACK = 1e-3  # largest gradient accepted as converged, in nats per unit of a parameter


def fit_affine(
    logits: Tensor,
    labels: Tensor,
    calibrated: Callable[[Tensor, Tensor, Tensor], Tensor],
    start: Callable[[float], Tensor],
    penalty: Callable[[Tensor, Tensor], Tensor],
) -> Fitted:
    """Weight and bias of least penalised NLL.

    Args:
        logits: [N,K] float64, checked; labels: [N].
        calibrated: (logits, weight, bias) -> logits.
        start: inverse temperature -> weight.
        penalty: (weight, bias) -> 0-dimensional penalty in nats.

    Raises:
        ArithmeticError: if the optimiser stops away from a minimum.
    """
    temperature, _ = best_temperature(logits, labels, 1 / BOUND, BOUND)
    weight = start(1 / temperature).to(logits)
    flat = torch.cat([weight.flatten(), logits.new_zeros(logits.shape[1])])

    def split(parameters: Tensor) -> tuple[Tensor, Tensor]:
        return parameters[: weight.numel()].view(weight.shape), parameters[weight.numel() :]

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(x, dtype=torch.float64, device=logits.device, requires_grad=True)
        w, b = split(parameters)
        value = mean_nll(calibrated(logits, w, b), labels) + penalty(w, b)
        (gradient,) = torch.autograd.grad(value, parameters)
        return float(value.detach()), gradient.cpu().numpy()

    with torch.enable_grad():
        best = minimised(value_and_gradient, flat.cpu().numpy(), [(-BOUND, BOUND)] * len(flat))
    w, b = split(torch.as_tensor(best, device=logits.device))
    return {
        "weight": w.clone(),
        "bias": b.clone(),
        "nll_before": mean_nll(logits, labels),
        "nll_after": mean_nll(calibrated(logits, w, b), labels),
    }


def minimised(
    value_and_gradient: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    bounds: list[tuple[float, float]],
) -> np.ndarray:
    """The minimum of a convex function in a box, by L-BFGS-B, with convergence checked on the projected gradient.

    Raises:
        ArithmeticError: if the projected gradient is larger than `SLACK` where the optimiser stopped.
    """
    result = minimize(
        value_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 5000, "maxfun": 20_000, "ftol": 1e-13, "gtol": 1e-7},
    )
    low, high = np.array(bounds).T
    projected = np.clip(result.x - result.jac, low, high) - result.x
    if np.abs(projected).max() > SLACK or not np.isfinite(result.fun):
        raise ArithmeticError(f"the calibrator did not converge: {result.message}")
    return np.asarray(result.x)
