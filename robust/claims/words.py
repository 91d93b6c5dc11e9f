"""How numbers stand in the sentence of a judgement: points, percentages, and an interval with its limits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from robust.statistics import Interval


def percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal: `81.2 %`."""
    return f"{100 * fraction:.1f} %"


def points(fraction: float) -> str:
    """A difference of fractions in percentage points, with its sign: `+3.1 points`."""
    return f"{100 * fraction:+.1f} points"


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def between(interval: Interval | None) -> str:
    """The limits, `1.2 to 3.4`; `unknown, one seed` where there is none."""
    if interval is None or (math.isinf(interval.low) and math.isinf(interval.high)):
        return "unknown, one seed"
    return f"{number(interval.low)} to {number(interval.high)}"


def between_points(interval: Interval | None) -> str:
    """The limits of a difference of fractions in percentage points: `-1.2 to +3.4`."""
    if interval is None or (math.isinf(interval.low) and math.isinf(interval.high)):
        return "unknown, one seed"
    return f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"


def listed(names: Sequence[object], most: int = 6) -> str:
    """Names in a row, the first few of many: `a, b and c`, `a, b and 7 more`."""
    texts = [str(name) for name in names]
    if len(texts) > most:
        return f"{', '.join(texts[:most])} and {len(texts) - most} more"
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}" if texts else "none"


def counted(n: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"
