"""The CNN twin of the neural ODEs: the same network with one residual block where they integrate."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust.models.ode_blocks import Derivative, MapFamily, ResidualMap


class ODECNN(MapFamily):
    """The baseline of the neural-ODE papers: the residual block z + f(z) in place of the integral curve.

    Yan et al. 2020, arXiv 1910.05513: same extractor and head as `odenet` and `tisode`, same f as `tisode`, 141,130
    weights on MNIST. With `repeats` = 10 the block is applied ten times with the same weights: the twin that is as
    deep as an ODE of ten Euler steps, which the published comparison lacks.
    """

    name: ClassVar[str] = "ode-cnn"
    family: ClassVar[str] = "residual"
    source: ClassVar[str] = "arXiv 1910.05513"

    repeats: int = Field(default=1, ge=1, description="times that the block is applied; its weights are shared")

    def mapping(self) -> ResidualMap:
        """z + f(z)."""
        return ResidualMap(Derivative(self.channels, self.norm, timed=False), self.repeats)
