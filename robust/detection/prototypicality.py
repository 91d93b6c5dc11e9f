"""Prototypicality: how well each example, of the training or test set, is represented by the rest of its data.

The scores of Carlini, Erlingsson & Papernot 2019 (arXiv 1910.13427), section 2, from what a study has anyway: logits of
an ensemble, logits before and after a retraining, and smallest adversarial distances. Each gives one value a sample,
higher = better represented; `rank_agreement` says how far they tell the same story. Numpy, float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from robust.calibration.metrics import Array, softmax

TINY = float(np.finfo(np.float64).tiny)


def confidence(logits: Any) -> Array:
    """`conf`: mean over the ensemble of the largest probability, [N] of member logits [M,N,K]; in [1/K, 1]."""
    return np.asarray(_members(logits).max(2).mean(0))


def agreement(logits: Any) -> Array:
    """`agr`: minus the mean Jensen-Shannon divergence over all pairs of members, [N] of [M,N,K]; in [-ln 2, 0]."""
    p = _members(logits)
    pairs = [(i, j) for i in range(len(p)) for j in range(i)]
    if not pairs:
        raise ValueError("ensemble agreement needs at least 2 members")
    return -np.mean([_jensen_shannon(p[i], p[j]) for i, j in pairs], axis=0)


def retraining(before: Any, after: Any) -> Array:
    """`ret`: minus the symmetric KL divergence between predictions [N,K] with and without the example's training.

    `before` are logits of a network that was trained on the sample's half of the data, `after` those of the same
    network after further training on the other half. In nats, at most 0.
    """
    p, q = np.maximum(softmax(before), TINY), np.maximum(softmax(after), TINY)
    return -((p - q) * (np.log(p) - np.log(q))).sum(1)


def adversarial_distance(distance: Any) -> Array:
    """`adv`: the smallest adversarial distance found, [N], as it stands in a ledger; inf where none was found."""
    found = np.asarray(distance, np.float64)
    if found.ndim != 1 or np.isnan(found).any() or (found < 0).any():
        raise ValueError("distances must be one number of at least 0 a sample, without NaN")
    return found


def rank_agreement(scores: dict[str, Any]) -> tuple[list[str], Array]:
    """Names, and the matrix of Spearman's rank correlations between scores [N] (the paper's figure 2)."""
    names = list(scores)
    ranks = np.stack([rankdata(np.asarray(scores[name], np.float64)) for name in names])
    constant = [name for name, row in zip(names, ranks) if np.ptp(row) == 0]
    if constant:
        raise ValueError(f"{', '.join(constant)}: the same for all samples, so it has no rank correlation")
    return names, np.atleast_2d(np.corrcoef(ranks))


def _members(logits: Any) -> Array:
    z = np.asarray(logits, np.float64)
    if z.ndim != 3:
        raise ValueError(f"member logits must have the shape [M,N,K], got {z.shape}")
    return softmax(z.reshape(-1, z.shape[2])).reshape(z.shape)


def _jensen_shannon(p: Array, q: Array) -> Array:
    middle = (p + q) / 2

    def divergence(a: Array) -> Array:
        return np.asarray((a * (np.log(np.maximum(a, TINY)) - np.log(np.maximum(middle, TINY)))).sum(1))

    return (divergence(p) + divergence(q)) / 2
