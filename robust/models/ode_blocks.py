"""What ODENet, TisODE and their CNN twin share: feature extractor, a map that keeps the shape, classifier.

Yan et al. 2020, "On Robustness of Neural Ordinary Differential Equations", arXiv 1910.05513: the three networks differ
in the map alone. The map is the residual block z + f(z), or the integral curve of dz/dt = f with the same f.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.models.denoising import Denoising, FeatureDenoising
from robust.models.model import Inputs, Model
from robust.models.ode_solver import IntegralCurve, Solver

LARGEST_MAP = 16  # side of the feature maps at most
Norm = Literal["group", "none"]


class Derivative(nn.Module):
    """f: twice (3 x 3 convolution, group normalisation, ReLU), [N,C,H,W] -> [N,C,H,W], never negative.

    With `timed`, f(t, z): each convolution has a bias and sees one more channel, which is t everywhere; without, f(z),
    no biases.
    """

    nonnegative = True  # it ends in a ReLU

    def __init__(self, channels: int, norm: Norm, timed: bool) -> None:
        super().__init__()
        self.timed = timed
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels + timed, channels, 3, padding=1, bias=timed) for _ in range(2)
        )
        self.activations = nn.ModuleList(nn.Sequential(*normalised(channels, norm)) for _ in range(2))

    def forward(self, time: float | Tensor, state: Tensor) -> Tensor:
        """f(t, z), [N,C,H,W]."""
        for convolution, activation in zip(self.convolutions, self.activations, strict=True):
            if self.timed:
                state = torch.cat([state, torch.ones_like(state[:, :1]) * time], dim=1)
            state = activation(convolution(state))
        return state


class ResidualMap(nn.Module):
    """z + f(z), `repeats` times with the same weights: a network as deep as an ODE of that many steps."""

    def __init__(self, derivative: Derivative, repeats: int) -> None:
        super().__init__()
        self.derivative, self.repeats = derivative, repeats

    def forward(self, state: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,C,H,W]."""
        for index in range(self.repeats):
            state = state + self.derivative(float(index), state)
        return state


class MapNetwork(nn.Module):
    """Extractor, map and head in a row: images [N,C,H,W] -> logits [N,K]."""

    extractor: nn.Sequential
    mapping: IntegralCurve | ResidualMap
    head: nn.Sequential

    def __init__(self, extractor: nn.Sequential, mapping: IntegralCurve | ResidualMap, head: nn.Sequential) -> None:
        super().__init__()
        self.extractor, self.mapping, self.head = extractor, mapping, head

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N,K]."""
        logits: Tensor = self.head(self.mapping(self.extractor(images)))
        return logits

    def with_solver(self, **settings: Any) -> MapNetwork:
        """The same weights (shared) with other settings of the integral curve, such as solver or step_size."""
        twin, mapping = copy.copy(self), copy.copy(self.mapping)
        for name, value in settings.items():
            setattr(mapping, name, value)
        twin._modules = {**self._modules, "mapping": mapping}
        return twin

    def gradient_views(self) -> dict[str, nn.Module]:
        """`substitute`, a copy with fixed RK4 steps, where an adaptive solver or the adjoint disturbs the gradient."""
        mapping = self.mapping
        if isinstance(mapping, IntegralCurve) and (mapping.adaptive or mapping.adjoint):
            return {"substitute": self.with_solver(solver="rk4", adjoint=False)}
        return {}


class MapFamily(Model):
    """Base of the three architectures: everything but the map.

    Extractor: 3 x 3 convolution without padding, then 4 x 4 convolutions of stride 2 until no side exceeds 16 (one on
    28- and 32-pixel images, three on 128-pixel ones), each with group normalisation and ReLU. Head: mean over
    pool x pool parts of the image, linear layer. The extractor is the authors' MNIST code; they publish none for
    larger images, for which this rule stands. Images enter as they are, in [0,1], without mean subtraction.
    """

    channels: int = Field(default=64, ge=1, description="channels of every layer; 64 is the published size")
    pool: int = Field(default=1, ge=1, description="side of the pooled features: 1 is the published global mean")
    norm: Norm = Field(default="group", description="group (32 groups, fewer where channels are) or none")
    denoising: Denoising = Field(
        default="none",
        description="a feature denoising block (arXiv 1812.03411) before the map: none, gaussian, dot-product, mean",
    )

    @abstractmethod
    def mapping(self) -> IntegralCurve | ResidualMap:
        """The map, [N,C,H,W] -> [N,C,H,W]."""

    def build(self, inputs: Inputs) -> MapNetwork:
        """Extractor, map, head.

        Raises:
            ValueError: if a side is shorter than 4 pixels.
        """
        fan_in, height, width = inputs.shape
        if min(height, width) < 4:
            raise ValueError(f"{self.name} needs images of at least 4 x 4 pixels, got {height} x {width}")
        layers: list[nn.Module] = [nn.Conv2d(fan_in, self.channels, 3), *normalised(self.channels, self.norm)]
        side, halvings = max(height, width) - 2, 0
        while halvings == 0 or side > LARGEST_MAP:
            layers.append(nn.Conv2d(self.channels, self.channels, 4, stride=2, padding=1))
            layers += normalised(self.channels, self.norm)
            side, halvings = side // 2, halvings + 1
        if self.denoising != "none":
            layers.append(FeatureDenoising(self.denoising, self.channels))
        linear = nn.Linear(self.channels * self.pool**2, inputs.num_classes)
        head = nn.Sequential(nn.AdaptiveAvgPool2d(self.pool), nn.Flatten(), linear)
        return MapNetwork(nn.Sequential(*layers), self.mapping(), head)

    def classifier(self, inputs: Inputs) -> Classifier:
        """The network on [0,1] images, not normalised."""
        return Classifier(self.build(inputs), num_classes=inputs.num_classes)


class Integrated(MapFamily):
    """Base of the two architectures whose map is an integral curve: the solver's settings.

    The authors' runs are Euler; `rk4` and `dopri5` solve the same equation better. With an adaptive solver the step
    control hides gradients (arXiv 2009.13145): the network then declares a fixed-step copy as its `substitute`.
    """

    solver: Solver = Field(default="euler", description="euler, rk4 (fixed steps) or dopri5 (adaptive)")
    step_size: float = Field(default=0.1, gt=0, description="longest step of euler and rk4, in units of time")
    final_time: float = Field(default=1.0, gt=0, description="T: the features are z(T)")
    rtol: float = Field(default=1e-3, gt=0, description="dopri5 only: relative tolerance")
    atol: float = Field(default=1e-3, gt=0, description="dopri5 only: absolute tolerance")
    adjoint: bool = Field(default=False, description="gradients by the adjoint method: constant memory, less exact")
    max_evaluations: int = Field(default=1000, ge=1, description="evaluations of f that one pass may take")

    def curve(self, timed: bool) -> IntegralCurve:
        """The integral curve of a fresh f."""
        return IntegralCurve(
            Derivative(self.channels, self.norm, timed),
            self.solver,
            self.step_size,
            self.final_time,
            self.rtol,
            self.atol,
            self.adjoint,
            self.max_evaluations,
        )


def normalised(channels: int, norm: Norm) -> list[nn.Module]:
    """Normalisation and ReLU."""
    layer = nn.GroupNorm(math.gcd(32, channels), channels) if norm == "group" else nn.Identity()
    return [layer, nn.ReLU(inplace=True)]


def map_network(classifier: Classifier) -> MapNetwork | None:
    """The network of this family behind a classifier, defended or not; None if it is another."""
    return next((module for module in classifier.modules() if isinstance(module, MapNetwork)), None)
