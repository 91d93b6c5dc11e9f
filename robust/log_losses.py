"""Training losses in log space: the logarithm of each sample's loss, exact where the loss itself is below 1e-800.

Once a network separates its training set, its loss falls below the smallest double (5e-324) while its logarithm is an
ordinary number near minus the margin. So the loss is never formed: log l(z, y) is, in float64, and what is
differentiated is exp(log l - log frame), the loss in units of an earlier loss.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

LossFunction = Literal["cross-entropy", "exponential", "logistic"]

TINY = -30.0  # below this log(1 + e^u) and e^u agree to the last bit of a double


def log_losses(logits: Tensor, labels: Tensor, loss: LossFunction = "cross-entropy") -> Tensor:
    """The natural logarithm of each sample's loss, [N] float64, differentiable.

    With u_j = z_j - z_y over the classes j != y:
        cross-entropy  log(1 + sum_j exp(u_j)) = softplus(logsumexp_j u_j)
        exponential    sum_j exp(u_j)
        logistic       sum_j log(1 + exp(u_j))
    The last two are the binary losses exp(-q) and log(1 + exp(-q)), one term for each pair of y and another class; for
    two classes logistic is cross-entropy.

    Args:
        logits: [N,K] of any floating-point type; everything from here on is float64.
        labels: [N].
        loss: which one.
    """
    behind = pair_gaps(logits.double(), labels)
    if loss == "exponential":
        return behind.logsumexp(1)
    if loss == "logistic":
        return log_softplus(behind).logsumexp(1)
    return log_softplus(behind.logsumexp(1))


def pair_gaps(logits: Tensor, labels: Tensor) -> Tensor:
    """u_j = z_j - z_y, minus the margin against each class, [N,K]; -inf at y itself, where there is no pair."""
    gaps = logits - logits.gather(1, labels[:, None])
    return gaps.scatter(1, labels[:, None], -torch.inf)


def log_softplus(values: Tensor) -> Tensor:
    """log log(1 + e^u), elementwise; u itself below -30, where nothing is lost by it."""
    safe = values.clamp_min(TINY)  # the branch not taken must stay finite too: its gradient is multiplied by 0
    return torch.where(values < TINY, values, torch.nn.functional.softplus(safe, threshold=50.0).log())


def mean_log(logs: Tensor) -> Tensor:
    """log(mean_n exp(logs_n)) of [N], a scalar."""
    return logs.logsumexp(0) - math.log(len(logs))


def inverse_loss(log_sum: float, loss: LossFunction = "cross-entropy") -> float:
    """The margin q at which a single pair alone would have the whole loss sum, l^{-1}(L), from log L.

    -log(exp(L) - 1) for cross-entropy and logistic, -log L for exponential (Lyu & Li 2020, arXiv 1906.05890, section 4
    and its extension to other losses): the numerator of the smoothed margin, positive once L < log 2 (exponential:
    L < 1).
    """
    if loss == "exponential" or log_sum < TINY:
        return -log_sum
    total = math.exp(min(log_sum, 700.0))
    return -total - math.log1p(-math.exp(-total)) if total > 1.0 else -math.log(math.expm1(total))
