"""J1: one signed-gradient step, which to first order adds the l1 norm of the loss gradient to the loss."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from robust.objectives.one_step import OneStep
from robust.threat import steepest


class J1(OneStep):
    """One signed-gradient step before each fit (FGSM training): a first-order penalty on the loss gradient's l1 norm.

    J1 = E[l(x) + eps |grad_x l|_1] ~ E[l(x + eps sign(grad_x l))] (Finlay, Oberman & Abbasi 2018, arXiv 1810.00953).
    `length: euclidean` (default) is the authors' code: the step is eps sign(g) / sqrt(C H W), so that eps is a
    Euclidean length and can be compared with J2's. `length: linf` is the formula: every pixel moves by eps.
    Two forward and two backward passes an image.
    """

    name: ClassVar[str] = "j1"
    family: ClassVar[str] = "gradient regularisation"
    source: ClassVar[str] = "arXiv 1810.00953"

    length: Literal["euclidean", "linf"] = Field(
        default="euclidean", description="norm in which eps is measured: euclidean (the code) or linf (the formula)"
    )

    def direction(self, gradient: Tensor) -> Tensor:
        """sign(g), or sign(g) / sqrt(C H W)."""
        sign = steepest(gradient, "linf")
        return sign / math.sqrt(gradient[0].numel()) if self.length == "euclidean" else sign
