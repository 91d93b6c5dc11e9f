"""Soft white lines, as MNIST-C draws them: brightness falls with the distance from the line."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
REACH = 2.3  # pixels of 28 at which a line has faded


def segment(height: int, width: int, start: tuple[float, float], end: tuple[float, float]) -> Array:
    """A segment's brightness in [0,1], [height,width]; start and end are (column, row), in pixels, left to right.

    With d the vertical distance in pixels of a 28-pixel image, brightness is 1 + log(1 - d / 2.3), not below 0
    (it reaches 0 at d = 1.45), over the columns from floor(start) to ceil(end).
    """
    drawn = np.zeros((height, width))
    (c0, r0), (c1, r1) = start, end
    if c1 <= c0:
        return drawn
    first, last = max(0, int(np.floor(c0))), max(0, min(width, int(np.ceil(c1))))
    columns, rows = np.arange(first, last)[None, :], np.arange(height)[:, None]
    distance = np.abs(rows - (r0 + (r1 - r0) / (c1 - c0) * (columns - c0))) * (28 / min(height, width))
    drawn[:, first:last] = np.clip(1 + np.log1p(-np.clip(distance / REACH, 0, 1 - 1e-9)), 0, 1)
    return drawn
