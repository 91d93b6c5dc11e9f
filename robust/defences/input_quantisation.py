"""Input quantisation: pixels rounded to a few levels, which hides the gradient and little else."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from torch import Tensor

from robust.defences.defence import Preprocessing


class InputQuantisation(Preprocessing):
    """Rounds every pixel to one of 2^bits levels (bit-depth reduction).

    Xu et al. 2018, "Feature Squeezing", arXiv 1704.01155, section III-A: g(x) = round(x (2^b - 1)) / (2^b - 1). Its
    gradient is zero almost everywhere, so the declared backward rule is the identity (Athalye et al. 2018, arXiv
    1802.00420, break it that way).
    """

    name = "input-quantisation"
    family = "preprocessing"
    source = "arXiv 1704.01155"

    bits: int = Field(default=3, ge=1, le=8, description="bits kept of each pixel")

    def process(self, images: Tensor, draws: np.random.Generator) -> Tensor:
        """The rounded images, [N,C,H,W]."""
        top = 2**self.bits - 1
        return (images * top).round() / top
