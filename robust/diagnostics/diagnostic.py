"""The diagnostic contract: a measurement of a classifier, returned as rows that go into the report as data."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from robust.classifier import Classifier
from robust.method import Method
from robust.randomness import Randomness

Row = dict[str, Any]


class Diagnostic(Method):
    """Base of all diagnostics."""

    kind: ClassVar[str] = "diagnostic"

    @abstractmethod
    def measure(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> list[Row]:
        """Rows of plain data, each with at least `quantity` and `value`."""
