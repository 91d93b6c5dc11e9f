"""Seeds against samples: how much of a difference is luck of training, and how much luck of the test set.

Two methods, each trained S times and judged on the same N samples, give matrices of right and wrong [S,N]. A
difference is believed when it is larger than both the variation over samples and the variation over seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from robust.statistics import Interval, discordant, mcnemar_midp, paired_bootstrap


@dataclass(frozen=True)
class VarianceComponents:
    """Variances of one cell (seed, sample): between seeds, between samples, and what neither explains.

    `seeds_error` and `samples_error` are the standard errors that each puts on the grand mean.
    """

    seeds: float
    samples: float
    residual: float
    seeds_error: float
    samples_error: float


@dataclass(frozen=True)
class Difference:
    """Mean difference of two methods on the same samples, with both its uncertainties.

    `samples` is the paired bootstrap interval at these seeds; `seeds` the t-interval over seeds at these samples,
    None where a method was trained only once. `p` is McNemar's mid-p where each method was trained once, else of a
    paired t-test on the samples' means over seeds.
    """

    effect: float
    samples: Interval
    seeds: Interval | None
    p: float
    only_first: int | None
    only_second: int | None

    @property
    def larger_than(self) -> str:
        """Which variation the difference exceeds: both, samples, seeds or neither."""
        over_samples = self.samples.excludes_zero()
        over_seeds = self.seeds is not None and self.seeds.excludes_zero()
        return ("neither", "seeds", "samples", "both")[2 * over_samples + over_seeds]


def t_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Mean of independent runs with Student's interval: mean -+ t_{n-1} s / sqrt(n).

    At n = 3 and 95 % the half-width is 2.48 sample standard deviations. One value sets no limits: -inf and inf.
    """
    runs = np.asarray(values, np.float64).ravel()
    if len(runs) == 0:
        raise ValueError("t_interval: there are no values")
    mean = float(runs.mean())
    if len(runs) == 1:
        return Interval(mean, -math.inf, math.inf)
    half = float(stats.t.ppf(0.5 + level / 2, len(runs) - 1) * runs.std(ddof=1) / math.sqrt(len(runs)))
    return Interval(mean, mean - half, mean + half)


def variance_components(outcomes: npt.ArrayLike) -> VarianceComponents:
    """Two-way random effects without replication: y_sn = mu + a_s + b_n + e_sn, by the method of moments.

    sigma_e^2 = MS_residual, sigma_seeds^2 = (MS_seeds - MS_residual) / N, sigma_samples^2 = (MS_samples - MS_residual)
    / S, negative estimates set to 0 (Searle, Casella and McCulloch 1992, section 4.7).

    Args:
        outcomes: [S,N] with at least two seeds and two samples, for example right and wrong as 1 and 0.
    """
    y = np.asarray(outcomes, np.float64)
    if y.ndim != 2 or min(y.shape) < 2:
        raise ValueError(f"variance components need outcomes [S,N] with S, N >= 2, got shape {y.shape}")
    S, N = y.shape
    over_seeds, over_samples, mean = y.mean(1), y.mean(0), y.mean()
    ms_seeds = N * ((over_seeds - mean) ** 2).sum() / (S - 1)
    ms_samples = S * ((over_samples - mean) ** 2).sum() / (N - 1)
    residual = ((y - over_seeds[:, None] - over_samples[None] + mean) ** 2).sum() / ((S - 1) * (N - 1))
    seeds = max(0.0, float(ms_seeds - residual) / N)
    samples = max(0.0, float(ms_samples - residual) / S)
    return VarianceComponents(
        seeds, samples, float(residual), math.sqrt(seeds / S), math.sqrt((samples + float(residual) / S) / N)
    )


def difference(first: npt.ArrayLike, second: npt.ArrayLike, seed: int = 0, level: float = 0.95) -> Difference:
    """Compare two methods on the same samples.

    Args:
        first: [S1,N], or [N] for one run: right and wrong (or any finite score) of each seed and sample.
        second: [S2,N] or [N], columns in the same order of samples.
        seed: of the bootstrap.
        level: confidence level of both intervals.
    """
    a, b = np.atleast_2d(np.asarray(first, np.float64)), np.atleast_2d(np.asarray(second, np.float64))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"the methods were judged on {a.shape[1]} and {b.shape[1]} samples; compare the same samples")
    samples = paired_bootstrap(a.mean(0), b.mean(0), seed=seed, level=level)
    if len(a) == len(b) == 1 and _binary(a) and _binary(b):
        only_first, only_second = discordant(a[0], b[0])
        p = float(mcnemar_midp(only_first, only_second))
        return Difference(samples.estimate, samples, None, p, only_first, only_second)
    p = _paired_t(a.mean(0) - b.mean(0))
    return Difference(samples.estimate, samples, welch(a.mean(1), b.mean(1), level), p, None, None)


def difference_sentence(found: Difference, first: str, second: str, what: str = "accuracy") -> str:
    """The finding in words, in percentage points: larger than both variations, than one, or than neither."""
    more = "more" if found.effect >= 0 else "less"
    size = f"{first} has {abs(found.effect) * 100:.1f} points {more} {what} than {second}"
    if found.effect == 0:
        size = f"{first} and {second} have the same {what}"
    if found.seeds is None:
        verb = "is" if found.larger_than == "samples" else "is not"
        untested = "over seeds it is untested (one run)"
        return f"{size}: the difference {verb} larger than the variation over samples; {untested}."
    if found.larger_than == "both":
        return f"{size}: the difference is larger than both the variation over samples and over seeds."
    tail = {
        "samples": "it is larger than that over samples, not than that over seeds",
        "seeds": "it is larger than that over seeds, not than that over samples",
        "neither": "it is larger than neither",
    }[found.larger_than]
    return f"{size}: the difference is not larger than both the variation over samples and over seeds; {tail}."


def welch(first: npt.NDArray, second: npt.NDArray, level: float = 0.95) -> Interval | None:
    """Welch's interval of the difference of two means over seeds; None unless both were trained twice or more."""
    if min(len(first), len(second)) < 2:
        return None
    effect = float(first.mean() - second.mean())
    errors = [float(runs.var(ddof=1)) / len(runs) for runs in (first, second)]
    if sum(errors) == 0:
        return Interval(effect, effect, effect)
    freedom = sum(errors) ** 2 / sum(e**2 / (len(runs) - 1) for e, runs in zip(errors, (first, second)))
    half = float(stats.t.ppf(0.5 + level / 2, freedom)) * math.sqrt(sum(errors))
    return Interval(effect, effect - half, effect + half)


def _paired_t(differences: npt.NDArray) -> float:
    n, spread = len(differences), float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    if spread == 0:
        return 1.0 if n < 2 or differences[0] == 0 else 0.0
    return float(2 * stats.t.sf(abs(differences.mean()) / (spread / math.sqrt(n)), n - 1))


def _binary(values: npt.NDArray) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())
