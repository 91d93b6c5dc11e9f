"""One frame of a perturbation sequence, so that a study can judge frames and count the flips between them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from robust.corruptions.pieces import PiecewiseCorruption
from robust.corruptions.sequences import FRAMES, NOISES, frame
from robust.randomness import Randomness

Name = Literal[
    "gaussian-noise",
    "shot-noise",
    "motion-blur",
    "zoom-blur",
    "snow",
    "brightness",
    "translate",
    "rotate",
    "tilt",
    "scale",
]


class SequenceFrame(PiecewiseCorruption):
    """Frame i of a perturbation sequence of ImageNet-P: `{name: sequence-frame, sequence: tilt, frame: 7}`.

    Evaluate the frames 0, 1, 2... under one study seed; `robust.shift.flip_probability` counts how often the
    prediction changes. Frame 0 is the clean image for noise, and one end of the path for the others.
    """

    name: ClassVar[str] = "sequence-frame"
    family: ClassVar[str] = "sequence"
    source: ClassVar[str] = "Hendrycks & Dietterich 2019, arXiv 1903.12261"

    severity: int = Field(
        default=1, ge=1, le=3, description="ImageNet-P's difficulty: noise strength, or frames a step"
    )
    sequence: Name = "rotate"
    frame: int = Field(default=0, ge=0, lt=FRAMES, description="position in the sequence, in steps")

    @model_validator(mode="after")
    def _inside(self) -> SequenceFrame:
        if self.sequence not in NOISES and self.frame * self.severity >= FRAMES:
            last = (FRAMES - 1) // self.severity
            raise ValueError(f"at severity {self.severity} the last frame of {self.sequence} is {last}")
        return self

    def corrupt(self, images: Tensor, rng: Randomness) -> Tensor:
        """The frame [N,C,H,W]."""
        return frame(self.sequence, images, rng, self.frame, self.severity)
