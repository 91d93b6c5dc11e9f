"""Integral curves of a neural ODE: where an image's features travel, and whether a perturbed neighbour stays near."""

from __future__ import annotations

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

POINTS = 40  # times at most at which a curve is looked at
Curves = dict[str, Tensor]  # "clean", "noise", "FGSM" -> states [P,N,D]


class IntegralCurves(Diagnostic):
    """Curves of test images and of perturbed neighbours over [0, 2T], and the distance between them.

    Yan et al. 2020, arXiv 1910.05513, argue that curves do not cross, so that a neighbour's curve is held between two
    others, and that at rest after T the distance at T is at most | integral_T^2T |f| dt | for states on one curve. The
    neighbours are x + sigma z, z ~ N(0, I), and the FGSM image of size eps, both cut to [0,1].

    Rows: `neighbour-distance` (mean of |z~(t) - z(t)|_2 at t = 0, T, 2T), `distance-growth` (mean of its value at T
    over that at 0), `within-steady-state-bound` (share of neighbours nearer at T than that integral). Figures: the
    curves along their first principal direction, and the mean distance against time. A network without integral
    curves gets one row without a value.
    """

    name: ClassVar[str] = "integral-curves"
    family: ClassVar[str] = "neural ODE"
    source: ClassVar[str] = "arXiv 1910.05513"

    samples: int = Field(default=50, ge=1, description="test images whose distances are averaged")
    drawn: int = Field(default=3, ge=1, description="of these, how many are drawn as curves")
    sigma: Exact = Field(default=exact("100/255"), gt=0, description="noise of the neighbours, in [0,1] image units")
    eps: Exact = Field(default=exact("3/10"), gt=0, description="linf size of the FGSM neighbours")

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        classifier = subject.classifier
        network = map_network(classifier)
        if network is None or not isinstance(network.mapping, IntegralCurve):
            return Measured([{"quantity": self.name, "value": None, "of": "this network has no integral curve"}])
        images, labels, ids = subject.test.batch(slice(0, self.samples))
        images, labels = images.to(classifier.device, classifier.dtype), labels.to(classifier.device)
        rng = Randomness.of(subject.seed, ids, self.name)
        curve = network.mapping
        times = curve.times(2 * curve.final_time, POINTS)
        with classifier.frozen():
            near = self.neighbours(classifier, images, labels, rng)
            with torch.no_grad():
                curves = {name: followed(classifier, network, x, times) for name, x in near.items()}
                start = network.extractor(classifier.normalise(images))
                mass = curve.with_mass(start, curve.final_time, 2 * curve.final_time)[1]
        bound = torch.linalg.vector_norm(mass.flatten(1), dim=1)
        apart = {name: torch.linalg.vector_norm(found - curves["clean"], dim=2) for name, found in curves.items()}
        del apart["clean"]
        return Measured(
            rows(apart, times, curve.final_time, bound), [self.drawing(curves, times), spread(apart, times)]
        )

    def neighbours(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> dict[str, Tensor]:
        """The images and their neighbours, by name, [N,C,H,W] each."""
        noise = rng.fork("noise").normal(images.shape[1:], like=images)
        attack = FGSM.model_validate({"norm": "linf", "eps": self.eps})
        return {
            "clean": images,
            "noise": (images + float(self.sigma) * noise).clamp(0, 1),
            "FGSM": attack.perturb(classifier, images, labels, rng.fork("fgsm")),
        }

    def drawing(self, curves: Curves, times: list[float]) -> Row:
        """The figure of the first few images and their noisy neighbours along one direction."""
        shown = torch.cat([curves["clean"][:, : self.drawn], curves["noise"][:, : self.drawn]], dim=1)
        places = first_component(shown)
        count = places.shape[1] // 2
        series = [
            {"label": f"z{index % count + 1}{', noisy' if index >= count else ''}", "x": times, "y": column.tolist()}
            for index, column in enumerate(places.T)
        ]
        return {
            "id": "curves",
            "paper": "O-3",
            "title": "Integral curves of test images and of their noisy neighbours",
            "caption": f"Along the first principal direction of the states; Gaussian noise {float(self.sigma):.3g}.",
            "x_label": "time t",
            "y_label": "first principal component of z(t)",
            "series": series,
        }


def followed(classifier: Classifier, network: MapNetwork, images: Tensor, times: list[float]) -> Tensor:
    """States [P,N,D] of the images' curves at P times; the network's map must be an integral curve."""
    if not isinstance(network.mapping, IntegralCurve):
        raise TypeError(f"the map is a {type(network.mapping).__name__}, not an integral curve")
    return torch.stack(network.mapping.states(network.extractor(classifier.normalise(images)), times)).flatten(2)


def first_component(states: Tensor) -> Tensor:
    """Coordinates [P,N] of states [P,N,D] along their first principal direction, rising with time on average."""
    flat = states.flatten(0, 1).double()
    flat = flat - flat.mean(0)
    values, vectors = torch.linalg.eigh(flat @ flat.T)  # fewer states than dimensions
    found = (vectors[:, -1] * values[-1].clamp_min(0).sqrt()).view(states.shape[:2])
    return found if found[-1].mean() >= found[0].mean() else -found


def rows(apart: dict[str, Tensor], times: list[float], final: float, bound: Tensor) -> list[Row]:
    """The table of distances [P,N] by kind of neighbour."""
    at_final = min(range(len(times)), key=lambda index: abs(times[index] - final))
    found: list[Row] = []
    for name, distance in apart.items():
        n = distance.shape[1]
        for index in (0, at_final, len(times) - 1):
            mean = float(distance[index].mean())
            found.append({"quantity": "neighbour-distance", "at": times[index], "of": name, "value": mean, "n": n})
        growth = (distance[at_final] / distance[0].clamp_min(1e-12)).mean()
        found.append({"quantity": "distance-growth", "of": name, "value": float(growth), "n": n})
        within = (distance[at_final] <= bound).double().mean()
        found.append({"quantity": "within-steady-state-bound", "of": name, "value": float(within), "n": n})
    return found


def spread(apart: dict[str, Tensor], times: list[float]) -> Row:
    """The figure of mean distances against time."""
    return {
        "id": "distances",
        "paper": "O-3",
        "title": "Distance between an image's curve and its neighbour's",
        "x_label": "time t",
        "y_label": "mean |z~(t) - z(t)|_2",
        "y_range": (0.0, 1.05 * max(float(distance.mean(1).max()) for distance in apart.values())),
        "series": [{"label": name, "x": times, "y": distance.mean(1).tolist()} for name, distance in apart.items()],
    }
