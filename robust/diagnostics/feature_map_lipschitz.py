"""How far features move when images do, stage by stage, and how steep the right-hand side of a neural ODE is."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.fgsm import FGSM
from robust.classifier import Classifier
from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.method import Exact, exact
from robust.models.ode_blocks import MapNetwork, map_network
from robust.models.ode_solver import IntegralCurve
from robust.randomness import Randomness

Map = Callable[[Tensor], Tensor]


class FeatureMapLipschitz(Diagnostic):
    """Measured Lipschitz quotients of the extractor and of the map, and the Jacobian df/dz along the curves.

    Quotients |FE(x) - FE(x')|_2 / |x - x'|_2 of the extractor and |M(z) - M(z')|_2 / |z - z'|_2 of the map behind it,
    for x' = x + sigma z (noise) and for the FGSM image. Along the curve, at t = 0, T, 2T: the spectral norm |df/dz|_2,
    by power iteration on J^T J, and the logarithmic norm, the largest eigenvalue of (J + J^T)/2, by shifted power
    iteration: neighbours part at most as exp of its integral, and where it is negative they approach each other
    (Dahlquist 1958). Both are estimates from below. The non-intersection argument of arXiv 1910.05513 needs the first
    to be bounded. For networks of the neural-ODE family; the CNN twin has its Jacobian at its one step; any other
    network gets one row without a value.
    """

    name: ClassVar[str] = "feature-map-lipschitz"
    family: ClassVar[str] = "neural ODE"
    source: ClassVar[str] = "arXiv 1910.05513"

    samples: int = Field(default=50, ge=1, description="test images")
    sigma: Exact = Field(default=exact("100/255"), gt=0, description="noise of the neighbours, in [0,1] image units")
    eps: Exact = Field(default=exact("3/10"), gt=0, description="linf size of the FGSM neighbours")
    iterations: int = Field(default=30, ge=1, description="steps of each power iteration")

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        classifier, network = subject.classifier, map_network(subject.classifier)
        if network is None:
            return Measured([{"quantity": self.name, "value": None, "of": "not a network of the neural-ODE family"}])
        images, labels, ids = subject.test.batch(slice(0, self.samples))
        images, labels = images.to(classifier.device, classifier.dtype), labels.to(classifier.device)
        rng = Randomness.of(subject.seed, ids, self.name)
        noise = rng.fork("noise").normal(images.shape[1:], like=images)
        attack = FGSM.model_validate({"norm": "linf", "eps": self.eps})
        with classifier.frozen():
            near = {"FGSM": attack.perturb(classifier, images, labels, rng.fork("fgsm"))}
            near["noise"] = (images + float(self.sigma) * noise).clamp(0, 1)
            with torch.no_grad():
                rows = [row for kind, x in near.items() for row in quotients(classifier, network, images, x, kind)]
                steep = self.steepness(network, network.extractor(classifier.normalise(images)), rng)
        return Measured(rows + steep, [] if len(steep) < 5 else [figure(steep)])

    def steepness(self, network: MapNetwork, start: Tensor, rng: Randomness) -> list[Row]:
        """Spectral and logarithmic norms of df/dz at the states that begin at `start` [N,C,H,W]."""
        mapping, times, states = network.mapping, [0.0], [start]
        if isinstance(mapping, IntegralCurve):
            times = [0.0, mapping.final_time, 2 * mapping.final_time]
            states = mapping.states(start, times)
        first = rng.fork("power").normal(start.shape[1:], like=start)
        rows: list[Row] = []
        for time, state in zip(times, states, strict=True):

            def rate(z: Tensor, time: float = time) -> Tensor:
                slope: Tensor = mapping.derivative(time, z)
                return slope

            spectral = spectral_norm(rate, state, first, self.iterations)
            logarithmic = logarithmic_norm(rate, state, first, spectral, self.iterations)
            for quantity, values in (("spectral-norm", spectral), ("logarithmic-norm", logarithmic)):
                for of, value in (("mean", values.mean()), ("max", values.max())):
                    rows.append({"quantity": quantity, "of": of, "at": time, "value": float(value), "n": len(values)})
        return rows


def quotients(classifier: Classifier, network: MapNetwork, images: Tensor, near: Tensor, kind: str) -> list[Row]:
    """Mean and largest Lipschitz quotient of both stages over pairs of images [N,C,H,W]."""
    stages = [(classifier.normalise(images), classifier.normalise(near))]
    stages.append((network.extractor(stages[0][0]), network.extractor(stages[0][1])))
    stages.append((network.mapping(stages[1][0]), network.mapping(stages[1][1])))
    apart = [torch.linalg.vector_norm((a - b).flatten(1).double(), dim=1) for a, b in stages]
    found: list[Row] = []
    for name, before, after in (("extractor", apart[0], apart[1]), ("map", apart[1], apart[2])):
        values = (after / before.clamp_min(1e-12))[before > 0]
        for quantity, value in ((f"{name}-quotient", values.mean()), (f"{name}-quotient-max", values.max())):
            found.append({"quantity": quantity, "of": kind, "value": float(value), "n": len(values)})
    return found


def spectral_norm(function: Map, at: Tensor, start: Tensor, iterations: int) -> Tensor:
    """|J|_2 [N] of the Jacobian J of a per-sample map at `at` [N,...], by power iteration from `start`."""
    forward, transposed = jacobian_products(function, at)
    direction = _unit(start)
    for _ in range(iterations):
        direction = _unit(transposed(forward(direction)))
    return _norm(forward(direction))


def logarithmic_norm(function: Map, at: Tensor, start: Tensor, shift: Tensor, iterations: int) -> Tensor:
    """Largest eigenvalue [N] of (J + J^T)/2; adding more than `shift` [N] = |J|_2 makes it the one of largest size."""
    forward, transposed = jacobian_products(function, at)
    direction, offset = _unit(start), 1.1 * shift.view(-1, *([1] * (at.dim() - 1)))

    def symmetric(v: Tensor) -> Tensor:
        return (forward(v) + transposed(v)) / 2

    for _ in range(iterations):
        direction = _unit(symmetric(direction) + offset * direction)
    return (direction * symmetric(direction)).flatten(1).sum(1)


def jacobian_products(function: Map, at: Tensor) -> tuple[Map, Map]:
    """v -> J v and u -> J^T u; the first by differentiating the second, which is linear in u."""
    with torch.enable_grad():
        leaf = at.detach().requires_grad_(True)
        value = function(leaf)
        covector = torch.zeros_like(value, requires_grad=True)
        pulled = torch.autograd.grad(value, leaf, covector, create_graph=True)[0]

    def forward(v: Tensor) -> Tensor:
        return torch.autograd.grad(pulled, covector, v, retain_graph=True)[0]

    def transposed(u: Tensor) -> Tensor:
        return torch.autograd.grad(value, leaf, u, retain_graph=True)[0]

    return forward, transposed


def _norm(values: Tensor) -> Tensor:
    return torch.linalg.vector_norm(values.flatten(1), dim=1)


def _unit(values: Tensor) -> Tensor:
    return values / _norm(values).clamp_min(1e-30).view(-1, *([1] * (values.dim() - 1)))


def figure(rows: list[Row]) -> Row:
    """Both norms of df/dz against time."""
    series = []
    for quantity in ("spectral-norm", "logarithmic-norm"):
        for of in ("mean", "max"):
            part = [row for row in rows if (row["quantity"], row["of"]) == (quantity, of)]
            label = f"{quantity.replace('-', ' ')}, {of}"
            series.append({"label": label, "x": [row["at"] for row in part], "y": [row["value"] for row in part]})
    return {
        "id": "steepness",
        "title": "How steep f is along the integral curves",
        "x_label": "time t",
        "y_label": "norm of df/dz",
        "series": series,
    }
