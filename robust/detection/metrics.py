"""Detection metrics: how well a score (higher = more in-distribution) tells in-distribution samples from others.

`inside` [N] and `outside` [M] are scores; a sample is accepted when its score is at least the threshold. Everything is
numpy in float64; only ranks matter, so every monotone map of the scores gives the same figures, and infinite scores
are allowed. NaN scores are refused by name: a detector that fails must not look like one that rejects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robust.calibration.metrics import Array, centred_interval


@dataclass(frozen=True)
class Curve:
    """How many samples of both sets are accepted at each distinct threshold, from the strictest to the loosest."""

    threshold: Array
    kept_inside: Array
    kept_outside: Array

    @classmethod
    def of(cls, inside: Any, outside: Any, score: str = "score") -> Curve:
        """The curve of two sets of scores; ties are one threshold.

        Raises:
            ValueError: if a set is empty, not one-dimensional, or holds NaN; the message names `score`.
        """
        return cls._at(*_positions(inside, outside, score))

    @classmethod
    def _at(cls, threshold: Array, a: Array, b: Array) -> Curve:
        """From rising thresholds and the position of each sample's score among them."""
        kept = (np.cumsum(np.bincount(part, minlength=len(threshold))[::-1]) for part in (a, b))
        return cls(threshold[::-1], *kept)

    @property
    def inside(self) -> Array:
        """Share of the inside accepted: true positive rate."""
        return np.asarray(self.kept_inside / self.kept_inside[-1])

    @property
    def outside(self) -> Array:
        """Share of the outside accepted: false positive rate."""
        return np.asarray(self.kept_outside / self.kept_outside[-1])

    @property
    def area(self) -> float:
        """Area under the ROC curve by trapezoids, which count a tie half."""
        step = np.diff(self.outside, prepend=0.0)
        return float((step * (self.inside - np.diff(self.inside, prepend=0.0) / 2)).sum())

    @property
    def reversed(self) -> Curve:
        """The curve with the outside as what is looked for, at the negated scores."""
        turned = (kept[-1] - np.concatenate([[0], kept[:-1]])[::-1] for kept in (self.kept_outside, self.kept_inside))
        return Curve(-self.threshold[::-1], *turned)

    @property
    def average_precision(self) -> float:
        """sum_n (R_n - R_{n-1}) P_n over thresholds, no interpolation."""
        precision = self.kept_inside / np.maximum(self.kept_inside + self.kept_outside, 1)
        return float((np.diff(self.inside, prepend=0.0) * precision).sum())


def auroc(inside: Any, outside: Any) -> float:
    """P(score inside > score outside) + P(equal) / 2, in [0,1]: exact with ties."""
    return Curve.of(inside, outside).area


def aupr_in(inside: Any, outside: Any) -> float:
    """Average precision with in-distribution as the positive class."""
    return Curve.of(inside, outside).average_precision


def aupr_out(inside: Any, outside: Any) -> float:
    """Average precision with out-of-distribution as the positive class, on the negated score."""
    return Curve.of(inside, outside).reversed.average_precision


def fpr_at(inside: Any, outside: Any, recall: float = 0.95) -> float:
    """FPR@95: share of outside samples accepted at the strictest threshold that accepts `recall` of the inside.

    The convention of Hendrycks & Gimpel 2017 and Liang et al. 2018; some benchmarks take the outside as positive.
    """
    return _fpr(Curve.of(inside, outside), recall)


def _fpr(curve: Curve, recall: float) -> float:
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
    return _best(Curve.of(inside, outside), prior, cost_reject, cost_accept)


def _best(curve: Curve, prior: float = 0.5, cost_reject: float = 1.0, cost_accept: float = 1.0) -> BestThreshold:
    accepted_in, accepted_out = (np.concatenate([[0.0], rate]) for rate in (curve.inside, curve.outside))
    cost = prior * cost_reject * (1 - accepted_in) + (1 - prior) * cost_accept * accepted_out
    best = int(np.argmin(cost))
    return BestThreshold(float(cost[best]), float(np.concatenate([[np.inf], curve.threshold])[best]))


def overlap(inside: Any, outside: Any, bins: int = 20) -> float:
    """Overlap of the two score distributions, sum_b min(share_in, share_out), in [0,1]; 1 = indistinguishable.

    Bins are equal parts of the evenly weighted pool of both sets, so a monotone map of the score changes nothing.
    """
    return _overlap(Curve.of(inside, outside), bins)


def _overlap(curve: Curve, bins: int = 20) -> float:
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
    return _figures(Curve.of(inside, outside, score))


def _figures(curve: Curve) -> dict[str, float]:
    best = _best(curve)
    finite = np.nan_to_num(curve.threshold)
    return {
        "auroc": curve.area,
        "aupr": curve.average_precision,
        "aupr_out": curve.reversed.average_precision,
        "fpr95": _fpr(curve, 0.95),
        "cost": best.cost,
        "threshold": float(np.clip(best.threshold, finite.min(), finite.max())),
        "overlap": _overlap(curve),
    }


def summary_intervals(
    inside: Any, outside: Any, score: str = "score", *, seed: int = 0, resamples: int = 500, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Bootstrap interval of each figure of `summary` but `threshold`; both sets are resampled, each in itself."""
    threshold, a, b = _positions(inside, outside, score)
    estimate = _figures(Curve._at(threshold, a, b))
    rng = np.random.default_rng(seed)
    draws = [
        _figures(Curve._at(threshold, a[rng.integers(0, len(a), len(a))], b[rng.integers(0, len(b), len(b))]))
        for _ in range(resamples)
    ]
    found = {}
    for key in ("auroc", "aupr", "aupr_out", "fpr95", "cost", "overlap"):
        low, high = centred_interval(estimate[key], [draw[key] for draw in draws], level)
        found[key] = (max(low, 0.0), min(high, 1.0))
    return found


def _positions(inside: Any, outside: Any, score: str) -> tuple[Array, Array, Array]:
    """The distinct scores, rising, and where each sample's score stands among them; sorted once for all resamples."""
    a, b = _checked(inside, score, "in-distribution"), _checked(outside, score, "out-of-distribution")
    threshold, position = np.unique(np.concatenate([a, b]), return_inverse=True)
    return threshold, position[: len(a)], position[len(a) :]


def _checked(scores: Any, score: str, which: str) -> Array:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{score}: need at least one {which} score in one dimension, got shape {values.shape}")
    bad = int(np.isnan(values).sum())
    if bad:
        raise ValueError(f"{score}: {bad} of {len(values)} {which} scores are NaN; the detector failed on them")
    return values
