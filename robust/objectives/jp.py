"""Jp: one step along the steepest direction of any l_p norm, of which J1 and J2 are the cases p = inf and p = 2."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.objectives.one_step import OneStep
from robust.threat import steepest_in


class JP(OneStep):
    """One steepest step in an l_p ball before each fit: a first-order penalty on the loss gradient's dual norm.

    E[l(x) + eps |grad_x l|_q] ~ E[l(x + eps d)], d the maximiser of <grad_x l, d> over |d|_p <= 1 and
    1/p + 1/q = 1 (Oberman 2018, "Lipschitz regularized deep neural networks", theorem 2.2). eps is an l_p length.
    p = 2 is `j2`, p = 1 the authors' Jinf (the largest coordinate alone); for p = inf use `j1` with `length: linf`.
    """

    name: ClassVar[str] = "jp"
    family: ClassVar[str] = "gradient regularisation"
    source: ClassVar[str] = "arXiv 1810.00953"

    p: float = Field(default=1.5, ge=1, allow_inf_nan=False, description="the norm of the step, 1 <= p < inf")

    def direction(self, gradient: Tensor) -> Tensor:
        """The dual-norm maximiser, of l_p norm 1."""
        return steepest_in(gradient, self.p)
