"""ODENet: the neural ordinary differential equation as a classifier's middle layer."""

from __future__ import annotations

from typing import ClassVar

from robust.models.ode_blocks import Integrated
from robust.models.ode_solver import IntegralCurve


class ODENet(Integrated):
    """Neural ODE classifier: features follow dz/dt = f(t, z) from t = 0 to T, then a linear layer reads z(T).

    Yan et al. 2020, arXiv 1910.05513, after Chen et al. 2018, arXiv 1806.07366. f is two 3 x 3 convolutions with group
    normalisation and ReLU, each fed t as one more channel. Euler with step 0.1, as the authors ran it: 10 evaluations
    of f. 142,410 weights on MNIST.
    """

    name: ClassVar[str] = "odenet"
    family: ClassVar[str] = "neural ODE"
    source: ClassVar[str] = "arXiv 1910.05513"

    def mapping(self) -> IntegralCurve:
        """The curve of f(t, z)."""
        return self.curve(timed=True)
