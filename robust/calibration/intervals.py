"""Bootstrap intervals of the calibration metrics: every resample at once, as a product of sums with counts.

A resample draws N samples with replacement; all that a metric needs of it is how often each sample was drawn. Binned
errors are then sums over a bin's samples weighted by these counts, which is one sparse product for all resamples.
Bins are fixed on the original samples: for equal widths that changes nothing, for equal mass it leaves out the little
that the bins' edges move from resample to resample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array

from robust.calibration import metrics
from robust.calibration.metrics import Array

RESAMPLES = 500
CHUNK = 200_000  # counts that are held as float64 at once: 1.6 MB, which stay in the processor's cache
LIMITS = {"nll": (0.0, np.inf), "brier": (0.0, 2.0), "overconfidence": (-1.0, 1.0), "ece_debiased": (-1.0, 1.0)}
SET_FIGURES = ("coverage", "size", "empty", "single", "worst_class")
Draws = dict[str, Array]


@dataclass(frozen=True)
class Resamples:
    """How often each of N samples stands in each of B resamples, [N,B]; columns sum to N.

    Networks judged on the same samples in the same order, resampled with the same seed, share their draws: draw b of
    one and draw b of another are a pair, and the differences of their metrics are a paired bootstrap (Efron 1979).
    """

    counts: Array

    @classmethod
    def of(cls, n: int, seed: int = 0, resamples: int = RESAMPLES) -> Resamples:
        """`resamples` draws of n samples out of n.

        Raises:
            ValueError: if there is no sample or no resample.
        """
        if n < 1 or resamples < 1:
            raise ValueError(f"a bootstrap needs at least one sample and one resample, got {n} and {resamples}")
        rng = np.random.default_rng(seed)
        drawn = [np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(resamples)]
        return cls(np.stack(drawn, 1).astype(np.uint32))

    def chunks(self) -> Iterator[Array]:
        """The counts as float64 [N,b], a few resamples at a time."""
        step = max(1, CHUNK // len(self.counts))
        for start in range(0, self.counts.shape[1], step):
            yield self.counts[:, start : start + step].astype(np.float64)


def summary_draws(probabilities: Array, labels: Array, resamples: Resamples, bins: int = 15) -> Draws:
    """Each metric of `metrics.summary` but `n` in every resample, [B]; NaN where a resample leaves it undefined.

    Args:
        probabilities: [N,K]; labels: [N].
        resamples: of N samples.
        bins: of `ece`, `ece_mass`, `ece_debiased`, `ece_classwise` and `mce`.

    Raises:
        ValueError: as `metrics.checked`, or if the resamples are of another number of samples.
    """
    p, y = metrics.checked(probabilities, labels)
    if len(resamples.counts) != len(y):
        raise ValueError(f"the resamples are of {len(resamples.counts)} samples, and there are {len(y)}")
    plan = _Plan.of(p, y, bins)
    parts = [plan.figures(counts) for counts in resamples.chunks()]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def set_draws(sets: Array, labels: Array, resamples: Resamples) -> Draws:
    """Each figure of `conformal.set_summary` in every resample, [B], of prediction sets [N,K] and labels [N]."""
    inside, y = np.asarray(sets, bool), np.asarray(labels)
    covered, size = inside[np.arange(len(y)), y].astype(np.float64), inside.sum(1)
    present, class_of = np.unique(y, return_inverse=True)
    rows = _sums(covered, size, size == 0, size == 1)
    classes = _grouped(class_of, covered, len(present)), _grouped(class_of, np.ones(len(y)), len(present))
    found: list[Array] = []
    for counts in resamples.chunks():
        share = _ratio(classes[0] @ counts, classes[1] @ counts, np.inf)
        found.append(np.vstack([rows @ counts / len(y), share.min(0)]))
    return dict(zip(SET_FIGURES, np.concatenate(found, 1)))


def bounds(
    estimate: Mapping[str, float | None], draws: Mapping[str, Array], level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Interval of every estimate that has draws and is a number, inside the metric's range.

    Resampling inflates binned errors, because noise adds to every gap, so the draws are moved to the estimate's own
    place before their quantiles are read. The bias that the estimate itself has stays: see `metrics.ece_debiased`.
    """
    found = {}
    for key, values in draws.items():
        value = estimate.get(key)
        if value is None:
            continue
        least, most = LIMITS.get(key, (0.0, np.inf if key == "size" else 1.0))
        low, high = metrics.centred_interval(value, values[np.isfinite(values)], level)
        # the estimate itself may pass its range by a rounding error
        found[key] = (min(value, max(low, least)), max(value, min(high, most)))
    return found


def summary_intervals(
    probabilities: Array,
    labels: Array,
    bins: int = 15,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Bootstrap interval of each metric of `metrics.summary` that is a number, but `n`: {metric: (low, high)}."""
    draws = summary_draws(probabilities, labels, Resamples.of(len(labels), seed, resamples), bins)
    return bounds(metrics.summary(probabilities, labels, bins), draws, level)


def columns(intervals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Intervals as the columns of a table: `ece_low`, `ece_high`..."""
    return {f"{key}_{end}": limit for key, pair in intervals.items() for end, limit in zip(("low", "high"), pair)}


@dataclass(frozen=True)
class _Plan:
    """Sparse rows [F,N] whose products with counts [N,b] are the sums behind the figures of b resamples."""

    means: csc_array  # confidence, correct, Brier, NLL, confidence of correct: sums over all samples
    signed: dict[str, csc_array]  # confidence less correctness of each bin
    wide: csc_array  # samples in each equal-width bin
    mass: tuple[csc_array, csc_array, csc_array]  # samples, confidence, correctness in each equal-mass bin
    ranked: tuple[csc_array, csc_array]  # samples and errors of each run, most confident first
    classes: int

    @classmethod
    def of(cls, p: Array, y: Array, bins: int) -> _Plan:
        confidence, correct = metrics.top_label(p, y)
        one, miss = np.ones(len(y)), confidence - correct
        wide, mass = metrics.width_bins(confidence, bins), metrics.mass_bins(confidence, bins)
        run = _runs(confidence, correct)
        runs = int(run.max()) + 1
        return cls(
            means=_sums(confidence, correct, *metrics.sample_scores(p, y), confidence * correct),
            signed={
                "ece": _grouped(wide, miss, bins),
                "ece_20": _grouped(metrics.width_bins(confidence, 20), miss, 20),
                "ece_classwise": _by_class(p, y, bins),
            },
            wide=_grouped(wide, one, bins),
            mass=(_grouped(mass, one, bins), _grouped(mass, confidence, bins), _grouped(mass, correct, bins)),
            ranked=(_grouped(run, one, runs), _grouped(run, 1 - correct, runs)),
            classes=p.shape[1],
        )

    def figures(self, counts: Array) -> Draws:
        """Every metric of b resamples, [b] each."""
        n = len(counts)
        confidence, correct, brier, nll, right = self.means @ counts
        errors = n - correct
        gaps = {key: np.abs(rows @ counts) for key, rows in self.signed.items()}
        found = {key: values.sum(0) / n for key, values in gaps.items()}
        found["ece_classwise"] /= self.classes
        area = _selective(n, *(rows @ counts for rows in self.ranked))
        return {
            "accuracy": correct / n,
            "confidence": confidence / n,
            "overconfidence": (confidence - correct) / n,
            **found,
            **_mass_errors(*(rows @ counts for rows in self.mass)),
            "mce": _ratio(gaps["ece"], self.wide @ counts, 0.0).max(0),
            "brier": brier / n,
            "nll": nll / n,
            "aurc": area,
            "aurc_excess": area - _selective_best(n, errors),
            "confidence_correct": _ratio(right, correct, np.nan),
            "confidence_errors": _ratio(confidence - right, errors, np.nan),
        }


def _grouped(group: Array, values: Array, groups: int) -> csc_array:
    """Rows [groups,N] that sum the values of each group's samples; both are [N], or [N,M] for samples of M groups each.

    Row by row of the samples, which is a sparse matrix's own form: nothing is sorted.
    """
    starts = np.arange(len(group) + 1) * (group.size // len(group))
    return csc_array((values.ravel().astype(np.float64), group.ravel(), starts), shape=(groups, len(group)))


def _sums(*values: Array) -> csc_array:
    """Rows [F,N] of values [N] each."""
    return _grouped(np.tile(np.arange(len(values)), (len(values[0]), 1)), np.stack(values, 1), len(values))


def _by_class(p: Array, y: Array, bins: int) -> csc_array:
    """Rows [.,N]: a class's probability less its event, in each bin of its probability that holds a sample."""
    classes = p.shape[1]
    cell = metrics.width_bins(p, bins) + bins * np.arange(classes)
    filled = np.bincount(cell.ravel(), minlength=bins * classes) > 0
    return _grouped((np.cumsum(filled) - 1)[cell], p - np.eye(classes)[y], int(filled.sum()))


def _runs(confidence: Array, correct: Array) -> Array:
    """Number [N] of each sample's run, most confident first: neighbours all right or all wrong; mixed ties apart."""
    group = metrics.tie_groups(-confidence)
    right = np.bincount(group, weights=correct) / np.bincount(group)
    mixed = (right > 0) & (right < 1)
    starts = (np.diff(right) != 0) | mixed[1:]
    return np.asarray(np.concatenate([[0], np.cumsum(starts)])[group])


def _mass_errors(count: Array, confidence: Array, correct: Array) -> Draws:
    """`ece_mass` and `ece_debiased` [b] of sums [bins,b]."""
    accuracy = _ratio(correct, count, 0.0)
    gap = np.abs(_ratio(confidence, count, 0.0) - accuracy)
    weight = count / count.sum(0)
    return {"ece_mass": (weight * gap).sum(0), "ece_debiased": metrics.debiased(gap, accuracy, count, weight).sum(0)}


def _selective(n: int, count: Array, errors: Array) -> Array:
    """AURC [b] of n samples, from the samples and errors [G,b] of each run, most confident first.

    An error at rank r raises the risk at every rank s >= r by 1/s, by H(n) - H(r - 1) in all, H the harmonic
    numbers. Over m ranks after C, of which the share e are errors, these sum to e (m H(n) - T(C + m) + T(C))
    with T(k) = H(0) + ... + H(k - 1); so no run needs its ranks one by one.
    """
    harmonic, total = _harmonic(n)
    ranks = np.diff(total[count.cumsum(0).astype(np.intp)], axis=0, prepend=0.0)
    return np.asarray((harmonic * errors.sum(0) - (_ratio(errors, count, 0.0) * ranks).sum(0)) / n)


def _selective_best(n: int, errors: Array) -> Array:
    """AURC [b] of a ranking of n samples that puts its errors [b] last."""
    harmonic, total = _harmonic(n)
    return np.asarray((harmonic * errors - total[n] + total[n - errors.astype(np.intp)]) / n)


def _harmonic(n: int) -> tuple[float, Array]:
    """H(n), and T(0), ..., T(n) with T(k) = H(0) + ... + H(k - 1)."""
    numbers = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])
    return float(numbers[n]), np.concatenate([[0.0], np.cumsum(numbers[:n])])


def _ratio(above: Array, below: Array, otherwise: float) -> Array:
    return np.divide(above, below, out=np.full(np.shape(above), otherwise), where=below > 0)
