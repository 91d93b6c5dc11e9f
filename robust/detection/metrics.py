"""Detection metrics: how well a score (higher = more in-distribution) tells in-distribution samples from others.

`inside` [N] and `outside` [M] are scores; a sample is accepted when its score is at least the threshold. Everything is
numpy in float64; only ranks matter, so every monotone map of the scores gives the same figures, and infinite scores
are allowed. NaN scores are refused by name: a detector that fails must not look like one that rejects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from robust.calibration.metrics import Array, centred_interval


@dataclass(frozen=True)
class Curve:
    """Acceptance at every distinct threshold, from strictest to loosest: shares of both sets with score >= it."""

    threshold: Array
    inside: Array  # true positive rate
    outside: Array  # false positive rate
    counts: tuple[int, int]

    @classmethod
    def of(cls, inside: Any, outside: Any, score: str = "score") -> Curve:
        """The curve of two sets of scores; ties are one threshold.

        Raises:
            ValueError: if a set is empty, not one-dimensional, or holds NaN; the message names `score`.
        """
        a, b = _checked(inside, score, "in-distribution"), _checked(outside, score, "out-of-distribution")
        both = np.concatenate([a, b])
        threshold, position = np.unique(both, return_inverse=True)
        size = len(threshold)
        counts = [np.bincount(part, minlength=size) for part in (position[: len(a)], position[len(a) :])]
        accepted = [np.cumsum(count[::-1]) / len(part) for count, part in zip(counts, (a, b))]
        return cls(threshold[::-1], accepted[0], accepted[1], (len(a), len(b)))


def auroc(inside: Any, outside: Any) -> float:
    """P(score inside > score outside) + P(equal) / 2, in [0,1]: the Mann-Whitney form, exact with ties."""
    a, b = _checked(inside, "score", "in-distribution"), _checked(outside, "score", "out-of-distribution")
    ranks = rankdata(np.concatenate([a, b]))[: len(a)].sum()
    return float((ranks - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))


def aupr_in(inside: Any, outside: Any) -> float:
    """Average precision with in-distribution as the positive class: sum (R_n - R_{n-1}) P_n, no interpolation."""
    curve = Curve.of(inside, outside)
    kept = curve.inside * curve.counts[0]
    precision = kept / (kept + curve.outside * curve.counts[1])
    return float((np.diff(curve.inside, prepend=0.0) * precision).sum())


def aupr_out(inside: Any, outside: Any) -> float:
    """Average precision with out-of-distribution as the positive class, on the negated score."""
    return aupr_in(-np.asarray(outside, np.float64), -np.asarray(inside, np.float64))


def fpr_at(inside: Any, outside: Any, recall: float = 0.95) -> float:
    """FPR@95: share of outside samples accepted at the strictest threshold that accepts `recall` of the inside.

    The convention of Hendrycks & Gimpel 2017 and Liang et al. 2018; some benchmarks take the outside as positive.
    """
    curve = Curve.of(inside, outside)
    return float(curve.outside[np.argmax(curve.inside >= recall - 1e-12)])


@dataclass(frozen=True)
class BestThreshold:
    """The threshold of least expected cost."""

    cost: float
    threshold: float


def best_threshold(
    inside: Any, outside: Any, *, prior: float = 0.5, cost_reject: float = 1.0, cost_accept: float = 1.0
) -> BestThreshold:
    """The threshold with the least expected cost of rejecting inside and accepting outside samples.

    cost(t) = prior * cost_reject * P(score < t | inside) + (1 - prior) * cost_accept * P(score >= t | outside). With
    the defaults this is the detection error of Liang et al. 2018 (arXiv 1706.02690), in [0, 0.5]. A threshold of +inf
    rejects everything.
    """
    curve = Curve.of(inside, outside)
    accepted_in, accepted_out = (np.concatenate([[0.0], rate]) for rate in (curve.inside, curve.outside))
    cost = prior * cost_reject * (1 - accepted_in) + (1 - prior) * cost_accept * accepted_out
    best = int(np.argmin(cost))
    return BestThreshold(float(cost[best]), float(np.concatenate([[np.inf], curve.threshold])[best]))


def overlap(inside: Any, outside: Any, bins: int = 20) -> float:
    """Overlap of the two score distributions, sum_b min(share_in, share_out), in [0,1]; 1 = indistinguishable.

    Bins are equal parts of the evenly weighted pool of both sets, so a monotone map of the score changes nothing.
    """
    curve = Curve.of(inside, outside)
    middle = (curve.inside + curve.outside) / 2
    middle = middle - np.diff(middle, prepend=0.0) / 2  # a tie falls where its middle falls
    index = np.minimum((middle * bins).astype(np.int64), bins - 1)
    shares = [np.bincount(index, np.diff(rate, prepend=0.0), minlength=bins) for rate in (curve.inside, curve.outside)]
    return float(np.minimum(*shares).sum())


def summary(inside: Any, outside: Any, score: str = "score") -> dict[str, float]:
    """`auroc`, `aupr` (= `aupr_in`), `aupr_out`, `fpr95`, `cost`, `threshold`, `overlap`; all but threshold in [0,1].

    `score` is the detector's name, for error messages. `threshold` is that of least cost, finite also where rejecting
    everything is best.
    """
    Curve.of(inside, outside, score)
    best = best_threshold(inside, outside)
    finite = np.nan_to_num(np.concatenate([np.asarray(inside, float), np.asarray(outside, float)]))
    return {
        "auroc": auroc(inside, outside),
        "aupr": aupr_in(inside, outside),
        "aupr_out": aupr_out(inside, outside),
        "fpr95": fpr_at(inside, outside),
        "cost": best.cost,
        "threshold": float(np.clip(best.threshold, finite.min(), finite.max())),
        "overlap": overlap(inside, outside),
    }


def summary_intervals(
    inside: Any, outside: Any, score: str = "score", *, seed: int = 0, resamples: int = 500, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Bootstrap interval of each figure of `summary` but `threshold`; both sets are resampled, each in itself."""
    a, b = _checked(inside, score, "in-distribution"), _checked(outside, score, "out-of-distribution")
    estimate = summary(a, b, score)
    rng = np.random.default_rng(seed)
    draws = [summary(a[rng.integers(0, len(a), len(a))], b[rng.integers(0, len(b), len(b))]) for _ in range(resamples)]
    found = {}
    for key in ("auroc", "aupr", "aupr_out", "fpr95", "cost", "overlap"):
        low, high = centred_interval(estimate[key], [draw[key] for draw in draws], level)
        found[key] = (max(low, 0.0), min(high, 1.0))
    return found


def _checked(scores: Any, score: str, which: str) -> Array:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{score}: need at least one {which} score in one dimension, got shape {values.shape}")
    bad = int(np.isnan(values).sum())
    if bad:
        raise ValueError(f"{score}: {bad} of {len(values)} {which} scores are NaN; the detector failed on them")
    return values
