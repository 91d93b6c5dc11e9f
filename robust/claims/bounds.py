"""Numbers over seeds against bounds: on which side they lie, and whether beyond the variation over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from robust.claims.claim import Verdict
from robust.claims.words import between, counted, number
from robust.seeds import t_interval, welch
from robust.statistics import Interval


def mean_of(values: Sequence[float]) -> Interval:
    """Mean over seeds with Student's interval; one seed sets no limits, equal values those of rounding none."""
    found = t_interval(values)
    return Interval(values[0], values[0], values[0]) if len(values) > 1 and len(set(values)) == 1 else found


def gap_of(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Difference of two means over seeds with Welch's interval; no limits where one was trained once."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    return welch(a, b) or Interval(float(a.mean() - b.mean()), -math.inf, math.inf)


def judged(found: Interval, at_least: float | None, at_most: float | None) -> Verdict:
    """holds: the whole interval keeps the bounds; partly: only the estimate does; fails: not even that."""
    low = -math.inf if at_least is None else at_least
    high = math.inf if at_most is None else at_most
    if not low <= found.estimate <= high:
        return "fails"
    known = math.isfinite(found.low) or math.isfinite(found.high)
    return "holds" if known and low <= found.low and found.high <= high else "partly"


def bound_words(at_least: float | None, at_most: float | None) -> str:
    """`at least 5`, `at most 0.1`, or both."""
    low = f"at least {at_least:g}" if at_least is not None else ""
    high = f"at most {at_most:g}" if at_most is not None else ""
    return " and ".join(part for part in (low, high) if part)


def over_seeds(found: Interval, seeds: int) -> str:
    """`0.12 (0.1 to 0.14 over 3 seeds)`."""
    value = number(found.estimate)
    return f"{value} ({between(found)} over {counted(seeds, 'seed')})" if seeds > 1 else f"{value} (one seed)"


def limit(value: float, scale: float = 1.0) -> float | None:
    """A limit of an interval for a table; None where there is none."""
    return scale * value if math.isfinite(value) else None
