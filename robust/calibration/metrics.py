"""Calibration metrics: how far a confidence can be believed, from probabilities [N,K] and labels [N].

Everything is numpy in float64. Inputs may be float32 arrays from a ledger (`softmax` turns logits into
probabilities) or CPU tensors. The prediction is the first largest probability, the confidence its value. Bins hold
what ties with each other, so no figure depends on the order of the samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import erf

Array = np.ndarray[Any, np.dtype[Any]]

# the smallest normal float64: exact for every softmax of logits less than 708 apart, and never an infinite NLL
PROBABILITY_FLOOR = float(np.finfo(np.float64).tiny)


def softmax(logits: Any) -> Array:
    """Probabilities [N,K] in float64 of logits [N,K].

    Raises:
        ValueError: if logits are not [N,K] or hold NaN or infinity.
    """
    z = np.asarray(logits, np.float64)
    if z.ndim != 2:
        raise ValueError(f"logits must have the shape [N,K], got {z.shape}")
    if not np.isfinite(z).all():
        raise ValueError(f"logits are NaN or infinite in {int((~np.isfinite(z)).any(1).sum())} of {len(z)} rows")
    e = np.exp(z - z.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def checked(probabilities: Any, labels: Any) -> tuple[Array, Array]:
    """Probabilities as float64 [N,K] and labels as int64 [N], or a message that says what is wrong with them.

    Raises:
        ValueError: if there is no sample, shapes differ, a probability is NaN, negative or above 1, rows do not sum
            to 1 (within 1e-3: half-precision rows pass), or a label is not one of 0..K-1.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels)
    if p.ndim != 2 or y.shape != p.shape[:1] or len(y) == 0:
        raise ValueError(f"need probabilities [N,K] and labels [N] with N >= 1, got {p.shape} and {y.shape}")
    if not np.isfinite(p).all():
        raise ValueError(f"probabilities are NaN or infinite in {int((~np.isfinite(p)).any(1).sum())} of {len(p)} rows")
    if p.min() < 0 or p.max() > 1 + 1e-6 or np.abs(p.sum(1) - 1).max() > 1e-3:
        raise ValueError("probabilities must lie in [0,1] with rows that sum to 1; for logits call softmax first")
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels must be integers from 0 to {p.shape[1] - 1}, got {y.dtype} {y.min()} to {y.max()}")
    return p, y.astype(np.int64)


def top_label(probabilities: Any, labels: Any) -> tuple[Array, Array]:
    """Confidence [N] in [0,1] and correctness [N] (0.0 or 1.0) of the predicted class."""
    p, y = checked(probabilities, labels)
    return p.max(1), (p.argmax(1) == y).astype(np.float64)


def width_bins(confidence: Array, bins: int) -> Array:
    """Bin number [N] for `bins` equal intervals ((m-1)/M, m/M]; a confidence of 0 falls into the first."""
    edges = np.linspace(0, 1, _positive(bins) + 1)
    return np.asarray(np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1))


def mass_bins(confidence: Array, bins: int) -> Array:
    """Bin number [N] for `bins` groups of equal count by rank; ties share a bin, N < bins gives each its own."""
    group = tie_groups(confidence)
    count = np.bincount(group)
    middle = (np.cumsum(count) - count / 2) / len(group)  # of the ranks that a group of ties takes, in [0,1]
    return np.asarray(np.minimum((middle * _positive(bins)).astype(np.int64), bins - 1)[group])


def tie_groups(confidence: Array) -> Array:
    """Number [N] of each sample's value among the distinct values, rising from 0."""
    return np.asarray(np.unique(confidence, return_inverse=True)[1])


@dataclass(frozen=True)
class Reliability:
    """What a reliability diagram shows, one entry a non-empty bin: count, mean confidence, accuracy."""

    count: Array
    confidence: Array
    accuracy: Array

    @classmethod
    def of(cls, confidence: Array, correct: Array, bin_of: Array) -> Reliability:
        """Group samples by their bin number."""
        count = np.bincount(bin_of)
        full = count > 0
        sums = (np.bincount(bin_of, weights=values)[full] / count[full] for values in (confidence, correct))
        return cls(count[full], *sums)

    @property
    def weight(self) -> Array:
        """Share of the samples in each bin."""
        return np.asarray(self.count / self.count.sum())

    @property
    def gap(self) -> Array:
        """|accuracy - confidence| of each bin."""
        return np.abs(self.accuracy - self.confidence)

    @property
    def expected_error(self) -> float:
        """The mean gap over samples: ECE."""
        return float((self.weight * self.gap).sum())


def reliability(probabilities: Any, labels: Any, bins: int = 15) -> Reliability:
    """The reliability diagram with equal-width bins."""
    confidence, correct = top_label(probabilities, labels)
    return Reliability.of(confidence, correct, width_bins(confidence, bins))


def ece(probabilities: Any, labels: Any, bins: int = 15) -> float:
    """Expected calibration error, equal-width bins: sum_m |B_m|/N |acc(B_m) - conf(B_m)|.

    Source: Naeini et al. 2015; Guo et al. 2017 (arXiv 1706.04599), eq. 3. In [0,1]; biased upwards, the more so the
    smaller N is against the bins: see `ece_debiased`.
    """
    return reliability(probabilities, labels, bins).expected_error


def ece_mass(probabilities: Any, labels: Any, bins: int = 15) -> float:
    """ECE with bins of equal count (Nguyen & O'Connor 2015; Nixon et al. 2019, arXiv 1904.01685)."""
    confidence, correct = top_label(probabilities, labels)
    return Reliability.of(confidence, correct, mass_bins(confidence, bins)).expected_error


def ece_debiased(probabilities: Any, labels: Any, bins: int = 15) -> float:
    """Equal-mass ECE less an estimate of its bias: about half of the bias is left for a calibrated net.

    Source: Kumar et al. 2019 (arXiv 1909.10155), section 5, for the l1 error. A bin's accuracy is taken as
    normal with variance acc (1 - acc) / n; the expected |gap| is then the mean of a folded normal, in closed form
    where the paper's code draws samples, and what it exceeds the observed gap by is subtracted. May be below 0.
    """
    confidence, correct = top_label(probabilities, labels)
    return _debiased(Reliability.of(confidence, correct, mass_bins(confidence, bins)))


def _debiased(table: Reliability) -> float:
    return float(debiased(table.gap, table.accuracy, table.count, table.weight).sum())


def debiased(gap: Array, accuracy: Array, count: Array, weight: Array) -> Array:
    """What each bin adds to the debiased error (see `ece_debiased`), of arrays of one shape; empty bins add nothing."""
    spread = np.sqrt(accuracy * (1 - accuracy) / np.maximum(count, 1))
    ratio = np.divide(gap, spread, out=np.full_like(gap, np.inf), where=spread > 0)
    folded = spread * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + gap * erf(ratio / np.sqrt(2))
    return np.asarray(weight * (2 * gap - folded))


def mce(probabilities: Any, labels: Any, bins: int = 15) -> float:
    """Maximum calibration error over equal-width bins (Guo et al. 2017, eq. 5); one sample can decide it."""
    return float(reliability(probabilities, labels, bins).gap.max())


def ece_classwise(probabilities: Any, labels: Any, bins: int = 15) -> float:
    """Class-wise ECE: each class's probability binned against its own frequency, averaged over the K classes.

    Source: Kull et al. 2019 (arXiv 1910.12656), eq. 3. A class without a sample counts with its mean probability.
    """
    p, y = checked(probabilities, labels)
    errors = [
        Reliability.of(p[:, k], (y == k).astype(np.float64), width_bins(p[:, k], bins)).expected_error
        for k in range(p.shape[1])
    ]
    return float(np.mean(errors))


def brier(probabilities: Any, labels: Any) -> float:
    """Brier score: mean over samples of sum_k (p_k - [y = k])^2, in [0,2] (Brier 1950)."""
    return float(_brier_terms(*checked(probabilities, labels)).mean())


@dataclass(frozen=True)
class BrierParts:
    """The Brier score = reliability - resolution + uncertainty + within, summed over classes.

    `within` is the variance less twice the covariance inside bins: 0 where each bin holds a single probability.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within: float

    @property
    def total(self) -> float:
        """The Brier score itself."""
        return self.reliability - self.resolution + self.uncertainty + self.within


def brier_decomposition(probabilities: Any, labels: Any, bins: int = 15) -> BrierParts:
    """Murphy's decomposition (1973) with the within-bin terms of Stephenson et al. 2008, so that the sum is exact."""
    p, y = checked(probabilities, labels)
    parts = np.zeros(4)
    for k in range(p.shape[1]):
        event, index = (y == k).astype(np.float64), width_bins(p[:, k], bins)
        table = Reliability.of(p[:, k], event, index)
        position = np.cumsum(np.bincount(index) > 0)[index] - 1  # of a sample's bin among the non-empty ones
        inner, outer = p[:, k] - table.confidence[position], event - table.accuracy[position]
        parts += (
            (table.weight * table.gap**2).sum(),
            (table.weight * (table.accuracy - event.mean()) ** 2).sum(),
            event.mean() * (1 - event.mean()),
            (inner**2 - 2 * inner * outer).mean(),
        )
    return BrierParts(*map(float, parts))


def nll(probabilities: Any, labels: Any) -> float:
    """Negative log-likelihood in nats: mean of -log p_y, with p floored at 2.2e-308 (708 nats)."""
    return float(_nll_terms(*checked(probabilities, labels)).mean())


def risk_coverage(confidence: Array, correct: Array) -> tuple[Array, Array]:
    """The selective risk curve: coverage 1/N..1 and the error rate among that share of most confident samples, [N].

    Source: El-Yaniv & Wiener 2010; Geifman & El-Yaniv 2017 (arXiv 1705.08500). Samples of equal confidence enter
    with their mean error, which is the expectation over their order.
    """
    group, errors = tie_groups(confidence), 1 - np.asarray(correct, np.float64)
    count = np.bincount(group)[::-1]  # most confident first
    mean_error = np.bincount(group, weights=errors)[::-1] / np.maximum(count, 1)
    rank = np.arange(1, len(group) + 1)
    return rank / len(rank), np.cumsum(np.repeat(mean_error, count)) / rank


def aurc(probabilities: Any, labels: Any) -> float:
    """Area under the risk-coverage curve, in [0,1]: mean selective risk over coverages 1/N..1; lower is better."""
    return float(risk_coverage(*top_label(probabilities, labels))[1].mean())


def aurc_excess(probabilities: Any, labels: Any) -> float:
    """AURC less that of a ranking which puts every error last (E-AURC, Geifman et al. 2019, arXiv 1805.08206)."""
    confidence, correct = top_label(probabilities, labels)
    best = risk_coverage(correct, correct)[1].mean()
    return float(risk_coverage(confidence, correct)[1].mean() - best)


def summary(probabilities: Any, labels: Any, bins: int = 15) -> dict[str, float | None]:
    """All metrics of one model on one set.

    Returns:
        `n`, `accuracy`, `confidence` (mean), `overconfidence` (confidence less accuracy, signed), `ece` (equal-width
        with `bins`), `ece_20`, `ece_mass`, `ece_debiased`, `ece_classwise`, `mce`, `brier`, `nll` (nats), `aurc`,
        `aurc_excess`, and `confidence_correct` and `confidence_errors`: mean confidence on right and wrong
        predictions, None where there are none (Grabinski et al. 2022, arXiv 2210.05938, compare the latter).
    """
    p, y = checked(probabilities, labels)
    confidence, correct = top_label(p, y)
    wide = Reliability.of(confidence, correct, width_bins(confidence, bins))
    mass = Reliability.of(confidence, correct, mass_bins(confidence, bins))
    brier_terms, nll_terms = sample_scores(p, y)
    return {
        "n": float(len(y)),
        "accuracy": float(correct.mean()),
        "confidence": float(confidence.mean()),
        "overconfidence": float(confidence.mean() - correct.mean()),
        "ece": wide.expected_error,
        "ece_20": Reliability.of(confidence, correct, width_bins(confidence, 20)).expected_error,
        "ece_mass": mass.expected_error,
        "ece_debiased": _debiased(mass),
        "ece_classwise": ece_classwise(p, y, bins),
        "mce": float(wide.gap.max()),
        "brier": float(brier_terms.mean()),
        "nll": float(nll_terms.mean()),
        "aurc": float(risk_coverage(confidence, correct)[1].mean()),
        "aurc_excess": aurc_excess(p, y),
        "confidence_correct": float(confidence[correct > 0].mean()) if correct.any() else None,
        "confidence_errors": float(confidence[correct == 0].mean()) if not correct.all() else None,
    }


def centred_interval(estimate: float, draws: Any, level: float = 0.95) -> tuple[float, float]:
    """Quantiles of bootstrap draws, moved so that their mean is the estimate."""
    if len(draws) == 0:
        return estimate, estimate
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) - np.mean(draws)
    return float(estimate + min(low, 0.0)), float(estimate + max(high, 0.0))


def sample_scores(p: Array, y: Array) -> tuple[Array, Array]:
    """Brier score and NLL of each sample, [N] each."""
    return _brier_terms(p, y), _nll_terms(p, y)


def _brier_terms(p: Array, y: Array) -> Array:
    return np.asarray(((p - np.eye(p.shape[1])[y]) ** 2).sum(1))


def _nll_terms(p: Array, y: Array) -> Array:
    return -np.log(np.maximum(p[np.arange(len(y)), y], PROBABILITY_FLOOR))


def _positive(bins: int) -> int:
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    return bins
