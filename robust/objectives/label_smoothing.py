"""Label smoothing: standard training on labels of which a share is spread over all classes."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust.objectives.standard import Standard


class LabelSmoothing(Standard):
    """Cross-entropy against smoothed labels: q = (1 - s) onehot(y) + s / K.

    Szegedy et al. 2016, arXiv 1512.00567, section 7, who take s = 0.1. It calibrates (Mueller et al. 2019, arXiv
    1906.02629), and it flattens the loss around the data without moving the decision: a cross-entropy attack may then
    find little to climb, so judge it with a margin loss as well. One forward and one backward pass an image.
    """

    name: ClassVar[str] = "label-smoothing"
    family: ClassVar[str] = "regularisation"
    source: ClassVar[str] = "arXiv 1512.00567"

    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="share of each label spread over all classes")
