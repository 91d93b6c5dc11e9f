"""Is a network homogeneous in its weights, of which degree, and if not, which layer breaks it?

The theory of margin maximisation speaks of networks with Phi(a theta; x) = a^L Phi(theta; x). That is an equation
between two forward passes, so it is tested as one: all weights times a power of two (exact in floating point) and times
a number that is none, in float64, at the weights as they are and at weights nearby, where no bias is zero by chance.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.losses import margin
from robust.margins import all_logits
from robust.randomness import generator

SCALES = (2.0, 0.5, 1.25)  # the last is no power of two: rounding differs, so an equality is no accident of it
TOLERANCE = 1e-9  # relative, in float64

KINKED = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.MaxPool2d)
NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Homogeneity:
    """What the test found.

    Attributes:
        degree: L >= 1, or None where the network is not homogeneous.
        breaks: the first layer whose output does not scale, and why; empty for a homogeneous network.
        error: largest relative difference between Phi(a theta) and a^L Phi(theta) at the weights as they are.
        layers: (name, type, degree or None) of each layer in the order in which it is called.
    """

    degree: int | None
    breaks: str
    error: float
    layers: tuple[tuple[str, str, int | None], ...]


def homogeneity(classifier: Classifier, images: Tensor, seed: int = 0) -> Homogeneity:
    """Test Phi(a theta; x) = a^L Phi(theta; x) on images [N,C,H,W] in [0,1], in float64 and eval mode.

    The classifier is left as it was. Weights and biases are scaled together, running statistics are not: they are no
    parameters. A network that draws at random is not homogeneous.
    """
    network = copy.deepcopy(classifier).double().requires_grad_(False).eval()
    batch = images.to(classifier.device).double()
    here = _scaling(network, batch)
    _move(network, seed)
    nearby = _scaling(network, batch)
    for found in (here, nearby):
        if found.degree is None:
            return Homogeneity(None, found.breaks, max(here.error, nearby.error), found.layers)
    return here


def degree(classifier: Classifier, images: Tensor) -> int | None:
    """L of a homogeneous network; None of any other."""
    return homogeneity(classifier, images).degree


def _scaling(network: Classifier, images: Tensor) -> Homogeneity:
    """The test at the network's own weights."""
    plain, logits = _trace(network, images, 1.0)
    scaled = [(a, *_trace(network, images, a)) for a in SCALES]
    layers, first = [], ""
    for place, (name, layer, output) in enumerate(plain):
        outputs = [(a, trace[place][2] if place < len(trace) else output[:0]) for a, trace, _ in scaled]
        found, _ = _degree(output, outputs)
        layers.append((name, type(layer).__name__, found))
        before = layers[-2][2] if len(layers) > 1 else 0
        first = first or (_reason(name, layer, before or 0) if found is None else "")
    whole, error = _degree(logits, [(a, values) for a, _, values in scaled])
    if whole is not None and whole < 1:
        whole, first = None, first or "the logits do not depend on the weights"
    breaks = "" if whole is not None else first or "what the network does between its layers mixes degrees"
    return Homogeneity(whole, breaks, error, tuple(layers))


def _trace(network: Classifier, images: Tensor, a: float) -> tuple[list[tuple[str, nn.Module, Tensor]], Tensor]:
    """Outputs of all layers, in order of the calls, and the logits, with all parameters times a."""
    calls: list[tuple[str, nn.Module, Tensor]] = []

    def note(name: str, layer: nn.Module) -> None:
        def hook(_: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                calls.append((name, layer, output.detach().clone()))

        handles.append(layer.register_forward_hook(hook))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    saved = [parameter.detach().clone() for parameter in network.parameters()]
    try:
        for name, layer in network.module.named_modules():
            if not list(layer.children()):
                note(name, layer)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(a)
            logits: Tensor = network(images)
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for parameter, before in zip(network.parameters(), saved):
                parameter.copy_(before)
    return calls, logits


def _degree(plain: Tensor, scaled: Sequence[tuple[float, Tensor]]) -> tuple[int | None, float]:
    """k with scaled = a^k plain for every a, and the largest relative error; (None, error) where there is none."""
    size = float(plain.abs().max()) if plain.numel() else 0.0
    a, doubled = scaled[0]
    if any(values.shape != plain.shape or not values.isfinite().all() for _, values in scaled):
        return None, math.inf
    if size == 0.0:  # a dead layer says nothing: 0 = a^k 0 for all k
        return (0, 0.0) if all(float(values.abs().max()) == 0.0 for _, values in scaled) else (None, math.inf)
    grown = float(doubled.abs().max())
    power = round(math.log(grown / size) / math.log(a)) if grown else 0
    errors = [float((values - a**power * plain).abs().max()) / (a**power * size) for a, values in scaled]
    return (power if max(errors) <= TOLERANCE else None), max(errors)


def _reason(name: str, layer: nn.Module, before: int) -> str:
    """Why a layer's output does not scale, in the field's words; `before` is the degree of the layer called before."""
    where = f"{name or 'the network'} ({type(layer).__name__})"
    if isinstance(layer, NORMALISATIONS):
        return f"{where} normalises: its output does not grow with its input"
    if getattr(layer, "bias", None) is not None and before:
        return f"{where} has a bias behind other layers: W x is of degree {before + 1} in the weights, b of degree 1"
    if isinstance(layer, nn.PReLU):
        return f"{where} has a slope among the weights"
    if not list(layer.parameters(recurse=False)):
        return f"{where} is not positively homogeneous, or what reaches it mixes degrees"
    return f"what reaches {where} mixes degrees"


def _move(network: Classifier, seed: int) -> None:
    """Weights nearby: a tenth of each tensor's size is added at random, so that no bias stays at zero."""
    draws = generator(seed, "homogeneity")
    with torch.no_grad():
        for parameter in network.parameters():
            size = float(parameter.square().mean().sqrt()) or 1.0
            noise = torch.from_numpy(draws.standard_normal(tuple(parameter.shape)))
            parameter.add_(0.1 * size * noise.to(parameter.device))


class HomogeneityCheck(Diagnostic):
    """Which assumptions of the max-margin theory this network meets: homogeneity, separability, smoothness, no bias.

    The assumptions of Lyu & Li 2020, arXiv 1906.05890 (question Q11 of its review), each a row with value 1 (met) or 0
    and a `detail`: `homogeneous`, with the degree L, or the first layer that breaks it; `separated`, the training set
    classified without an error; `twice differentiable`, which ReLU and max pooling are not (the theorems on gradient
    flow then need the chain rule for Clarke's subdifferential, those on gradient descent do not apply); `no bias`,
    in any layer. Further rows: the degree, the error of the scaling test, training accuracy, the smallest margin.
    """

    name: ClassVar[str] = "homogeneity"
    family: ClassVar[str] = "margins"
    source: ClassVar[str] = "arXiv 1906.05890"

    samples: int = Field(default=16, ge=1, description="training images in the scaling test; separability takes all")

    def measure(self, subject: Subject) -> Measured:
        """Rows of assumptions and of what they rest on."""
        classifier = subject.classifier
        found = homogeneity(classifier, subject.train.batch(slice(0, self.samples))[0], subject.seed)
        logits, labels = all_logits(classifier, subject.train)
        accuracy, smallest = float((logits.argmax(1) == labels).double().mean()), -float(margin(logits, labels).max())
        module = classifier.module
        kinks = sorted({type(layer).__name__ for layer in module.modules() if isinstance(layer, KINKED)})
        biased = [name for name, _ in module.named_parameters() if name.rpartition(".")[2] == "bias"]
        degree_text = f"degree {found.degree}, relative error {found.error:.1e}"
        rows = [
            _assumption("homogeneous", found.degree is not None, found.breaks or degree_text),
            _assumption("separated", smallest > 0, f"training accuracy {100 * accuracy:.2f} %"),
            _assumption(
                "twice differentiable", not kinks, f"kinks in {', '.join(kinks)}" if kinks else "no kink known"
            ),
            _assumption("no bias", not biased, f"{', '.join(biased)}" if biased else "none has one"),
            {"quantity": "degree of homogeneity", "value": found.degree},
            {"quantity": "scaling error", "value": found.error if math.isfinite(found.error) else None},
            {"quantity": "train accuracy", "value": accuracy, "n": len(labels)},
            {"quantity": "smallest margin", "value": smallest, "n": len(labels)},
        ]
        return Measured(rows)


def _assumption(name: str, met: bool, detail: str) -> Row:
    return {"quantity": "assumption", "of": name, "value": float(met), "detail": detail}
