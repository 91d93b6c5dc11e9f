"""No change: the images as they are, the first row of every table."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.corruptions.corruption import Corruption
from robust.randomness import Randomness


class Clean(Corruption):
    """The images as they are."""

    name: ClassVar[str] = "clean"
    family: ClassVar[str] = "baseline"
    source: ClassVar[str] = "the published test set"

    severity: int = Field(default=0, ge=0, le=0)

    def apply(self, images: Tensor, rng: Randomness) -> Tensor:
        """The images themselves."""
        return images
