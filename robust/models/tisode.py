"""TisODE: the time-invariant neural ODE, made for the steady-state loss."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust.models.ode_blocks import Integrated
from robust.models.ode_solver import IntegralCurve


class TisODENet(Integrated):
    """Time-invariant neural ODE classifier: features follow dz/dt = f(z), with no clock in f.

    Yan et al. 2020, arXiv 1910.05513, section 4: a curve that starts later is the same curve, so curves cannot cross.
    As `odenet`, with no time channel and no bias in f; Euler with step
    0.05, as the authors ran it: 20 evaluations of f. 141,130 weights on MNIST. TisODE is this network trained with the
    objective `tisode`, which adds the steady-state loss; under any other objective it is the ablation without it.
    """

    name: ClassVar[str] = "tisode"
    family: ClassVar[str] = "neural ODE"
    source: ClassVar[str] = "arXiv 1910.05513"

    step_size: float = Field(default=0.05, gt=0, description="longest step of euler and rk4, in units of time")

    def mapping(self) -> IntegralCurve:
        """The curve of f(z)."""
        return self.curve(timed=False)
