"""Is it one function? The same image twice, alone, in other company, and under the eyes of an attacker.

An attack is only as good as its belief that the classifier it differentiates is the classifier that is judged. These
checks compare logits and need a dozen passes; differences count relative to the spread of the logits.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.diagnostics.probe import Connected, Probe, gradient_of
from robust.diagnostics.verdict import Check, Scope

ALONE = 12  # samples that are also classified one by one

# torch's own layers whose train mode is something else by design
TRAINED_OTHERWISE = (
    nn.modules.batchnorm._NormBase,
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
    nn.RNNBase,
    nn.MultiheadAttention,
)


@dataclass(frozen=True)
class Function:
    """Largest differences of logits, relative to their spread; `tolerance` is what rounding explains.

    Attributes:
        twice: two calls on one batch.
        company: alone, in another order and in the batch.
        watched: with and without a gradient being recorded.
        mode_logits, mode_gradient: told that it is being trained, its standard layers still in eval mode; the
            gradient's difference is 1 - cosine, the median over samples.
        mode_random: two calls in that mode differ more than two calls in eval mode.
    """

    twice: float
    company: float
    watched: float
    mode_logits: float
    mode_gradient: float
    mode_random: bool
    tolerance: float


def examine(probe: Probe) -> Function:
    """All of the above on the probe's samples."""
    with torch.no_grad():
        first, second = probe.classifier(probe.images), probe.classifier(probe.images)
        company = max(_alone(probe, first), _permuted(probe, first))
    watched, gradient = _watched(probe)
    mode_logits, mode_gradient, mode_random = 0.0, 0.0, False
    twin = trained(probe.classifier)
    with torch.no_grad():
        told, again = twin(probe.images), twin(probe.images)
        comparable = isinstance(told, Tensor) and told.shape == first.shape
        if comparable:
            other, _, _ = gradient_of(Connected(twin), probe.images, probe.labels)
            mode_logits, mode_gradient = difference(first, told), _turned(gradient, other)
            mode_random = difference(told, again) > tolerance(first)
    return Function(
        difference(first, second),
        company,
        difference(first, watched),
        mode_logits,
        mode_gradient,
        mode_random,
        tolerance(first),
    )


def tolerance(logits: Tensor) -> float:
    """Relative difference that arithmetic explains: about 1e-4 in float32, more where a GPU chooses its kernels."""
    room = 0.3 * float(torch.finfo(logits.dtype).eps) ** 0.5
    return room if logits.device.type == "cpu" else 30 * room


def difference(first: Tensor, second: Tensor) -> float:
    """Largest difference of two sets of logits [N,K] over the median spread of a row; infinite where one has a NaN."""
    spread = float((first.amax(1) - first.amin(1)).double().median())
    gap = float((first.double() - second.double()).abs().max())
    if gap != gap:
        return float("inf")
    return gap / max(spread, 1e-30) if gap else 0.0


def trained(classifier: Classifier) -> Classifier:
    """A copy told that it is in train mode, while torch's own layers keep to eval: what differs is its own doing."""
    twin = copy.deepcopy(classifier)
    for module in twin.modules():
        module.training = not isinstance(module, TRAINED_OTHERWISE)
    return twin


def _alone(probe: Probe, logits: Tensor) -> float:
    rows = range(min(ALONE, len(probe)))
    try:
        single = torch.cat([probe.classifier(probe.images[row : row + 1]) for row in rows])
    except ValueError:  # torch's batch statistics refuse a batch of one
        return float("inf")
    return difference(logits[: len(single)], single)


def _permuted(probe: Probe, logits: Tensor) -> float:
    half = logits.shape[0] // 2
    turned = torch.cat([probe.classifier(probe.images[half:].flip(0)), probe.classifier(probe.images[:half].flip(0))])
    return difference(logits, torch.cat([turned[len(turned) - half :].flip(0), turned[: len(turned) - half].flip(0)]))


def _watched(probe: Probe) -> tuple[Tensor, Tensor]:
    gradient, _, logits = gradient_of(Connected(probe.classifier), probe.images, probe.labels)
    return logits, gradient


def _turned(first: Tensor, second: Tensor) -> float:
    """1 - cosine between two gradients, median over samples; 0 where both vanish."""
    a, b = first.flatten(1).double(), second.flatten(1).double()
    lengths = a.norm(dim=1) * b.norm(dim=1)
    cosine = (a * b).sum(1) / lengths.clamp_min(1e-300)
    both = (a.norm(dim=1) == 0) & (b.norm(dim=1) == 0)
    return float(torch.where(both, 0.0, 1 - cosine).median())


def checks(function: Function, declared: bool, model: str) -> list[Check]:
    """Repetition, company, attention and mode, each with its measured difference."""

    def check(name: str, value: float, failed: bool, reason: str, scope: Scope = "any") -> Check:
        return Check(model, "", name, not failed, min(value, 1e30), function.tolerance, reason, scope=scope)

    room, random = function.tolerance, function.twice > function.tolerance
    said = f"{{:.2g}} of the logits' spread, rounding explains {room:.1g}"
    told = not function.mode_random and (function.mode_logits > room or function.mode_gradient > 0.05)
    undeclared = (
        f"two calls on the same images differ by {said.format(function.twice)}: the classifier is random and does not "
        "declare it, so every attack met another function; declare `random` and attack the mean over its draws (EOT)"
    )
    declared_reason = (
        f"the classifier is random (two calls differ by {said.format(function.twice)}) and this attack followed single "
        "draws: average over them (EOT)"
    )
    company = (
        f"an image's logits depend on the images beside it, by {said.format(function.company)}: batch statistics, a "
        "shared step control or noise by position; a verdict then belongs to a batch and not to an image"
    )
    watched = (
        f"the logits change by {said.format(function.watched)} when a gradient is recorded: the attacker sees another "
        "network"
    )
    mode = (
        f"the network behaves differently when told that it is being trained, beyond what torch's own layers do: "
        f"logits move by {said.format(function.mode_logits)}, gradients turn by 1 - cos = {function.mode_gradient:.2g}"
    )
    return [
        check("the same twice", function.twice, random and not declared, undeclared),
        check("random, so averaged", function.twice, random, declared_reason, "single draw"),
        check("alone as in a batch", function.company, not random and function.company > room, company),
        check("unwatched as watched", function.watched, not random and function.watched > room, watched),
        check("evaluated as trained", function.mode_gradient, not random and told, mode),
    ]
