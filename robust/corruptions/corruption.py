"""The corruption contract: what happens to images without an adversary, seeded per sample."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.method import Method
from robust.randomness import Randomness


class Corruption(Method):
    """Base of all corruptions and shifts. Severity 1 (mild) to 5 (severe) as in ImageNet-C; 0 leaves images alone."""

    kind: ClassVar[str] = "corruption"

    severity: int = Field(default=3, ge=0, le=5)

    @abstractmethod
    def apply(self, images: Tensor, rng: Randomness) -> Tensor:
        """Corrupted images [N,C,H,W] in [0,1]; the same bytes for a sample whatever batch it comes in."""
