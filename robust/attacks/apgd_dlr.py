"""APGD-DLR: Auto-PGD on the difference-of-logits ratio."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.attacks.apgd_ce import APGDCE
from robust.losses import dlr


class APGDDLR(APGDCE):
    """Auto-PGD on the difference-of-logits ratio, which no rescaling of the logits can weaken.

    Croce & Hein 2020, arXiv 2003.01690, eq. 7:  DLR = -(z_y - max_{j != y} z_j) / (z_(1) - z_(3)). Needs 3 classes.
    """

    name: ClassVar[str] = "apgd-dlr"
    family: ClassVar[str] = "fixed budget"
    source: ClassVar[str] = "Croce & Hein 2020, arXiv 2003.01690"
    min_classes: ClassVar[int] = 3

    def objective(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """DLR, [n]."""
        return dlr(logits, labels)
