"""J2: one normalised-gradient step, which to first order adds the l2 norm of the loss gradient to the loss."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.objectives.one_step import OneStep
from robust.threat import steepest


class J2(OneStep):
    """One normalised-gradient step before each fit: a first-order penalty on the loss gradient's l2 norm.

    J2 = E[l(x) + eps |grad_x l|_2] ~ E[l(x + eps grad_x l / |grad_x l|_2)] (Finlay, Oberman & Abbasi 2018,
    arXiv 1810.00953). Two forward and two backward passes an image.
    """

    name: ClassVar[str] = "j2"
    family: ClassVar[str] = "gradient regularisation"
    source: ClassVar[str] = "arXiv 1810.00953"

    def direction(self, gradient: Tensor) -> Tensor:
        """g / |g|_2; 0 where the loss is flat."""
        return steepest(gradient, "l2")
