"""Temperature scaling: one number that sharpens or softens every softmax and changes no prediction."""

from __future__ import annotations

import logging
import math
from typing import ClassVar

from pydantic import Field
from scipy.optimize import brentq
from torch import Tensor

from robust.calibration.calibrator import Calibrator, Fitted, checked, mean_nll

log = logging.getLogger("robust.calibration.temperature")


class Temperature(Calibrator):
    """Temperature scaling: p = softmax(z / T) with the T > 0 of least NLL on the calibrate split.

    Source: Guo et al. 2017, arXiv 1706.04599, eq. 9. NLL is convex in 1/T, so its derivative in 1/T,
    mean(E_p[z] - z_y), has at most one root; it is bracketed and found on the scale of log T in float64.
    Where there is none, because every sample is right (T -> 0) or logits say nothing (T -> infinity), T stops at the
    bound and `bounded` says so. T = 1 lies between the bounds, so NLL on the split is never worse than uncalibrated.

    `fit` returns `temperature`, `bounded` (1.0 at a bound), `nll_before` and `nll_after` in nats, all 0-dimensional.
    """

    name: ClassVar[str] = "temperature"
    family: ClassVar[str] = "parametric"
    source: ClassVar[str] = "Guo et al. 2017, arXiv 1706.04599"

    low: float = Field(default=0.01, gt=0, le=1, description="least temperature allowed, in (0,1]")
    high: float = Field(default=100.0, ge=1, description="greatest temperature allowed, at least 1")

    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """The temperature of least NLL.

        Raises:
            ValueError: if logits or labels are unusable.
            ArithmeticError: if the root finder does not converge, or made NLL worse (it cannot, on finite logits).
        """
        z = checked(logits, labels)
        temperature, bounded = best_temperature(z, labels, self.low, self.high)
        before, after = mean_nll(z, labels), mean_nll(z / temperature, labels)
        if after > before + 1e-9 * (1 + before):
            raise ArithmeticError(f"T = {temperature:.6g} has NLL {after:.6g}, T = 1 has {before:.6g}")
        if bounded:
            log.warning("temperature stopped at its bound %.4g: NLL falls on beyond it", temperature)
        return {
            "temperature": z.new_tensor(temperature),
            "bounded": z.new_tensor(float(bounded)),
            "nll_before": before,
            "nll_after": after,
        }

    def transform(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """softmax(z / T), [N,K]."""
        return (checked(logits) / fitted["temperature"].to(logits.device)).softmax(1)


def best_temperature(logits: Tensor, labels: Tensor, low: float, high: float) -> tuple[float, bool]:
    """The T in [low, high] of least NLL, and whether it is a bound rather than a minimum.

    Flat NLL (all logits of a row equal) gives T = 1.
    """
    centred = logits - logits.mean(1, keepdim=True)  # NLL ignores shifts, rounding does not
    own = centred.gather(1, labels[:, None].long())[:, 0]

    def slope(log_temperature: float) -> float:
        p = (centred * math.exp(-log_temperature)).softmax(1)
        return float(((p * centred).sum(1) - own).mean())  # derivative of NLL in 1/T, falling in T

    if not bool((centred != 0).any()):
        return 1.0, False
    bottom, top = math.log(low), math.log(high)
    if slope(bottom) <= 0:
        return low, True
    if slope(top) >= 0:
        return high, True
    root, result = brentq(slope, bottom, top, xtol=1e-12, rtol=1e-12, maxiter=200, full_output=True)
    if not result.converged:
        raise ArithmeticError(f"temperature did not converge: {result.flag}")
    return math.exp(root), False
