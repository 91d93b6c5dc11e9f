"""Statistics of counts and of paired samples: intervals, paired tests, bootstrap, and correction for many comparisons.

Everything is float64, seeded and, where tables are wide, vectorised over the table's cells. What concerns training
seeds (t-intervals, variance components, "larger than both") stands in `robust.seeds`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]

CHUNK = 4_000_000  # numbers a bootstrap holds at once: 32 MB


class Interval(NamedTuple):
    """An estimate with its two-sided confidence limits; infinite limits say that the data set no limit."""

    estimate: float
    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low > 0 or self.high < 0


def wilson(successes: npt.ArrayLike, n: npt.ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """Wilson's score interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    With z the normal quantile, p = k/n: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n). Good at any n,
    never leaves [0,1].

    Args:
        successes: k, any shape, 0 <= k <= n.
        n: trials, broadcast with k; n = 0 gives (0, 1).
        level: confidence level in (0,1).

    Returns:
        Lower and upper limits in [0,1], with the broadcast shape.
    """
    k, trials = _counts(successes, n)
    z = stats.norm.ppf(0.5 + _checked(level) / 2)
    some = np.maximum(trials, 1)
    p = k / some
    centre = p + z**2 / (2 * some)
    half = z * np.sqrt(p * (1 - p) / some + z**2 / (4 * some**2))
    low, high = (centre - half) / (1 + z**2 / some), (centre + half) / (1 + z**2 / some)
    # exact at the ends, where rounding would leave 1e-17
    low = np.where((k == 0) | (trials == 0), 0.0, low)
    high = np.where((k == trials) | (trials == 0), 1.0, high)
    return low, high


def clopper_pearson(successes: npt.ArrayLike, n: npt.ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """The exact interval of a proportion (Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404).

    Quantiles of Beta(k, n-k+1) and Beta(k+1, n-k): covers at least `level` for every p, so it is wide at small n.
    Arguments and result as for `wilson`.
    """
    k, trials = _counts(successes, n)
    tail = (1 - _checked(level)) / 2
    low = np.where(k > 0, stats.beta.ppf(tail, np.maximum(k, 1), trials - k + 1), 0.0)
    high = np.where(k < trials, stats.beta.isf(tail, k + 1, np.maximum(trials - k, 1)), 1.0)
    return low, high


def mcnemar_exact(only_first: npt.ArrayLike, only_second: npt.ArrayLike) -> Array:
    """Two-sided exact p of McNemar's test on the discordant pairs (McNemar 1947, doi:10.1007/BF02295996).

    p = min(1, 2 P[X <= min(b, c)]) with X ~ Binomial(b + c, 1/2); 1 where no pair is discordant.

    Args:
        only_first: b, samples that only the first model gets right; any shape.
        only_second: c, broadcast with b.
    """
    b, c = np.broadcast_arrays(np.asarray(only_first, np.float64), np.asarray(only_second, np.float64))
    return np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(b, c), b + c, 0.5))


def mcnemar_midp(only_first: npt.ArrayLike, only_second: npt.ArrayLike) -> Array:
    """McNemar's mid-p test: the exact p less P[X = min(b, c)], with nearer its nominal size and more power.

    Fagerland, Lydersen and Laake 2013, doi:10.1186/1471-2288-13-91, equation 9. Arguments as for `mcnemar_exact`.
    """
    b, c = np.broadcast_arrays(np.asarray(only_first, np.float64), np.asarray(only_second, np.float64))
    p = 2 * stats.binom.cdf(np.minimum(b, c), b + c, 0.5) - stats.binom.pmf(np.minimum(b, c), b + c, 0.5)
    return np.minimum(1.0, p)


def discordant(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[int, int]:
    """How many samples only the first and only the second model [N] gets right."""
    a, b = _paired(first, second)
    return int(((a > 0) & (b == 0)).sum()), int(((a == 0) & (b > 0)).sum())


def paired_bootstrap(
    first: npt.ArrayLike, second: npt.ArrayLike, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """Percentile interval of mean(first - second), resampling samples so that pairs stay together.

    Args:
        first: [N] score of each sample under the first model: right or wrong, a distance, a mean over seeds.
        second: [N] of the same samples.
        seed: of the resampling; the same data and seed give the same bytes.
        resamples: bootstrap draws; the ends move by about 1/sqrt(resamples) of a standard error.
        level: confidence level.

    Raises:
        ValueError: if the lengths differ or a value is not finite.
    """
    a, b = _paired(first, second)
    # resampling N rows = drawing multinomial counts of the distinct differences: three of them for right and wrong
    values, counts = np.unique(a - b, return_counts=True)
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK // len(values))
    means = [
        generator.multinomial(len(a), counts / len(a), size=min(rows, resamples - done)) @ values / len(a)
        for done in range(0, resamples, rows)
    ]
    return _percentiles(float((a - b).mean()), np.concatenate(means), level)


def bootstrap(
    statistic: Callable[[npt.NDArray], float],
    samples: npt.ArrayLike,
    seed: int = 0,
    resamples: int = 2_000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of any statistic of N independent samples (Efron 1979, doi:10.1214/aos/1176344552).

    Args:
        statistic: maps rows [N,...] to a number, for example `np.median`; may return infinities.
        samples: [N,...]; rows are drawn with replacement.
        seed: of the resampling.
        resamples: bootstrap draws.
        level: confidence level.
    """
    rows = np.asarray(samples)
    if len(rows) == 0:
        raise ValueError("bootstrap: there are no samples")
    generator = np.random.default_rng(seed)
    draws = np.array([statistic(rows[generator.integers(len(rows), size=len(rows))]) for _ in range(resamples)], float)
    return _percentiles(float(statistic(rows)), draws, level)


def holm(p: npt.ArrayLike) -> Array:
    """p-values corrected for the number of comparisons: reject where <= alpha and the family-wise error is <= alpha.

    Holm 1979: with p sorted ascending, p~_i = max_{j<=i} min(1, (m - j + 1) p_j). Any shape; keeps it.
    """
    raw = np.asarray(p, np.float64)
    if ((raw < 0) | (raw > 1) | np.isnan(raw)).any():
        raise ValueError("holm: p-values lie in [0,1]")
    flat = raw.ravel()
    order = np.argsort(flat, kind="stable")
    stepped = np.minimum(1.0, flat[order] * np.arange(len(flat), 0, -1))
    corrected = np.empty_like(flat)
    corrected[order] = np.maximum.accumulate(stepped)
    return corrected.reshape(raw.shape)


def _percentiles(estimate: float, draws: Array, level: float) -> Interval:
    tail = (1 - _checked(level)) / 2
    # no interpolation: a median of distances may be infinite, and inf - inf is not a number
    low, high = np.quantile(draws, [tail, 1 - tail], method="inverted_cdf")
    return Interval(estimate, float(low), float(high))


def _paired(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[Array, Array]:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise ValueError(f"paired samples must be two equal, non-empty lists [N], got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("paired samples must be finite; give distances as capped values or ranks")
    return a, b


def _counts(successes: npt.ArrayLike, n: npt.ArrayLike) -> tuple[Array, Array]:
    k, trials = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(n, np.float64))
    if (k < 0).any() or (k > trials).any():
        raise ValueError("an interval of a proportion needs 0 <= successes <= n")
    return k, trials


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"a confidence level lies between 0 and 1, got {level}")
    return level
