"""Split conformal prediction: nonconformity scores of every class, the threshold, and how good the sets are.

Scores are [N,K] in float64, higher = stranger. A set holds the classes whose score is at most the threshold, which is
the ceil((n + 1)(1 - alpha))-th smallest score of the true class on the calibrate split; for exchangeable samples it
then holds the true class with probability at least 1 - alpha (Vovk et al. 2005).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def lac_scores(probabilities: Tensor) -> Tensor:
    """1 - p_k, in [0,1]."""
    return 1 - probabilities


def aps_scores(probabilities: Tensor) -> Tensor:
    """The probability of all classes at least as likely as k, k itself included, in [0,1]; ties count with each other.

    The deterministic form of Romano et al. 2020: valid, and larger than the randomised one.
    """
    total = probabilities.sort(1, descending=True).values.cumsum(1)
    return total.gather(1, ranks(probabilities) - 1).clamp(max=1.0)


def ranks(probabilities: Tensor) -> Tensor:
    """1 for the most likely class up to K, [N,K]; ties take the largest rank of their group."""
    rising = probabilities.sort(1, descending=True).values.neg().contiguous()
    return torch.searchsorted(rising, probabilities.neg().contiguous(), right=True)


def threshold(scores: Tensor, alpha: float) -> Tensor:
    """The ceil((n + 1)(1 - alpha))-th smallest of n scores [n]; inf, which gives full sets, where n is too small."""
    n = len(scores)
    k = math.ceil((n + 1) * (1 - alpha) - 1e-9)
    if k > n:
        return scores.new_tensor(math.inf)
    return scores.kthvalue(max(k, 1)).values


def own(scores: Tensor, labels: Tensor) -> Tensor:
    """The true class's score, [N]."""
    return scores.gather(1, labels[:, None].long())[:, 0]


def set_summary(sets: Tensor, labels: Tensor) -> dict[str, float]:
    """Figures of prediction sets [N,K]: `coverage`, `size` (mean), `empty` and `single` (shares), `worst_class`.

    `worst_class` is the least coverage among the classes that occur.
    """
    if sets.dim() != 2 or labels.shape != sets.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"need sets [N,K] and labels [N] with N >= 1, got {tuple(sets.shape)} and {tuple(labels.shape)}"
        )
    covered, size = own(sets.double(), labels), sets.sum(1)
    return {
        "coverage": float(covered.mean()),
        "size": float(size.double().mean()),
        "empty": float((size == 0).double().mean()),
        "single": float((size == 1).double().mean()),
        "worst_class": min(float(covered[labels == k].mean()) for k in labels.unique()),
    }
